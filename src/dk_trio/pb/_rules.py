"""Validation rules by message and field. Made from the comments in proto/ by `make proto`. DO NOT EDIT!"""

from __future__ import annotations

from typing import Any

RULES: dict[str, dict[str, tuple[tuple[str, Any], ...]]] = {
    "agentic_mesh_protocol.cost.v1.AddCostRequest": {
        "cost": (("required", True), ("gte", 0.0)),
        "mission_id": (("required", True), ("min_len", 1), ("prefix", "missions:")),
        "name": (("required", True), ("min_len", 1)),
        "cost_type": (("required", True), ("not_in", [0])),
        "unit": (("required", True), ("min_len", 1)),
        "rate": (("required", True), ("gte", 0.0)),
        "setup_version_id": (("required", True), ("min_len", 1), ("prefix", "setup_versions:")),
        "quantity": (("required", True), ("gte", 0.0)),
    },
    "agentic_mesh_protocol.cost.v1.Cost": {
        "cost": (("required", True), ("gte", 0.0)),
        "mission_id": (("required", True), ("min_len", 1), ("prefix", "missions:")),
        "name": (("required", True), ("min_len", 1)),
        "cost_type": (("required", True), ("not_in", [0])),
        "unit": (("required", True), ("min_len", 1)),
        "rate": (("required", True), ("gte", 0.0)),
        "setup_version_id": (("required", True), ("min_len", 1), ("prefix", "setup_versions:")),
        "quantity": (("required", True), ("gte", 0.0)),
    },
    "agentic_mesh_protocol.cost.v1.CostConfig": {
        "name": (("required", True), ("min_len", 1)),
        "cost_type": (("required", True), ("defined_only", True)),
        "unit": (("required", True), ("min_len", 1)),
        "rate": (("required", True), ("gt", 0.0)),
    },
    "agentic_mesh_protocol.cost.v1.CostFilter": {
        "names": (("each.min_len", 1),),
        "cost_types": (("each.not_in", [0]),),
        "setup_version_ids": (("each.min_len", 1), ("each.prefix", "setup_versions:")),
    },
    "agentic_mesh_protocol.cost.v1.GetCostConfigRequest": {
        "setup_version_id": (("required", True), ("min_len", 1), ("prefix", "setup_versions:")),
    },
    "agentic_mesh_protocol.cost.v1.GetCostRequest": {
        "mission_id": (("required", True), ("min_len", 1), ("prefix", "missions:")),
        "name": (("required", True), ("min_len", 1)),
    },
    "agentic_mesh_protocol.cost.v1.GetCostResponse": {
        "total_cost": (("gte", 0.0),),
    },
    "agentic_mesh_protocol.cost.v1.GetCostsRequest": {
        "mission_id": (("required", True), ("min_len", 1), ("prefix", "missions:")),
        "limit": (("gte", 1), ("lte", 1000)),
        "offset": (("gte", 0),),
    },
    "agentic_mesh_protocol.cost.v1.GetCostsResponse": {
        "total_count": (("gte", 0),),
        "total_cost": (("gte", 0.0),),
    },
    "agentic_mesh_protocol.cost.v1.SetCostConfigRequest": {
        "setup_version_id": (("required", True), ("min_len", 1), ("prefix", "setup_versions:")),
        "configs": (("required", True),),
    },
    "agentic_mesh_protocol.filesystem.v1.DeleteFilesRequest": {
        "context": (("required", True), ("pattern", "^(missions:|setups:).*$")),
        "filters": (("required", True),),
    },
    "agentic_mesh_protocol.filesystem.v1.DeleteFilesResponse": {
        "total_deleted": (("gte", 0),),
        "total_failed": (("gte", 0),),
    },
    "agentic_mesh_protocol.filesystem.v1.File": {
        "file_id": (("required", True), ("pattern", "^files:.*$")),
        "context": (("required", True), ("pattern", "^(missions:|setups:).*$")),
        "name": (("required", True), ("min_len", 1)),
        "file_type": (("required", True), ("not_in", [0])),
        "content_type": (("required", True), ("min_len", 1)),
        "size_bytes": (("required", True), ("gte", 0)),
        "checksum": (("required", True), ("min_len", 1)),
        "storage_uri": (("required", True), ("min_len", 1)),
        "file_url": (("required", True), ("min_len", 1)),
        "status": (("required", True), ("not_in", [0])),
    },
    "agentic_mesh_protocol.filesystem.v1.FileFilter": {
        "file_ids": (("each.pattern", "^files:.*$"),),
        "file_types": (("each.not_in", [0]),),
        "context": (("required", True), ("pattern", "^(missions:|setups:).*$")),
        "min_size_bytes": (("gte", 0),),
        "max_size_bytes": (("gte", 0),),
        "prefix": (("pattern", "^[^.]*([.][^.]+)*[.]?$"),),
    },
    "agentic_mesh_protocol.filesystem.v1.GetFileRequest": {
        "context": (("pattern", "^(missions:|setups:).*$"),),
        "file_id": (("required", True), ("pattern", "^files:.*$")),
    },
    "agentic_mesh_protocol.filesystem.v1.GetFileResponse": {
        "file": (("required", True),),
    },
    "agentic_mesh_protocol.filesystem.v1.GetFilesRequest": {
        "context": (("required", True), ("pattern", "^(missions:|setups:).*$")),
        "filters": (("required", True),),
        "list_size": (("gte", 1), ("lte", 1000)),
        "offset": (("gte", 0),),
    },
    "agentic_mesh_protocol.filesystem.v1.GetFilesResponse": {
        "total_count": (("gte", 0),),
    },
    "agentic_mesh_protocol.filesystem.v1.UpdateFileRequest": {
        "context": (("required", True), ("pattern", "^(missions:|setups:).*$")),
        "file_id": (("required", True), ("pattern", "^files:.*$")),
        "new_name": (("min_len", 1),),
        "file_type": (("not_in", [0]),),
        "content_type": (("min_len", 1),),
        "status": (("required", True), ("not_in", [0])),
    },
    "agentic_mesh_protocol.filesystem.v1.UploadFileData": {
        "context": (("required", True), ("pattern", "(^(missions:|setups:).*$|^default$)")),
        "name": (("required", True), ("min_len", 1), ("pattern", "^[^.]*([.][^.]+)*[.]?$")),
        "file_type": (("required", True), ("not_in", [0])),
        "content_type": (("required", True), ("min_len", 1)),
        "content": (("required", True), ("min_len", 1)),
        "status": (("required", True), ("not_in", [0])),
    },
    "agentic_mesh_protocol.filesystem.v1.UploadFilesRequest": {
        "files": (("required", True), ("min_items", 1)),
    },
    "agentic_mesh_protocol.filesystem.v1.UploadFilesResponse": {
        "total_uploaded": (("gte", 0),),
        "total_failed": (("gte", 0),),
    },
    "agentic_mesh_protocol.module.v1.GetConfigSetupModuleRequest": {
        "module_id": (("required", True), ("min_len", 1), ("prefix", "modules:")),
    },
    "agentic_mesh_protocol.module.v1.GetConfigSetupModuleResponse": {
        "config_setup_schema": (("required", True),),
    },
    "agentic_mesh_protocol.module.v1.GetModuleCostRequest": {
        "module_id": (("required", True), ("min_len", 1), ("prefix", "modules:")),
    },
    "agentic_mesh_protocol.module.v1.GetModuleCostResponse": {
        "cost_schema": (("required", True),),
    },
    "agentic_mesh_protocol.module.v1.GetModuleInputRequest": {
        "module_id": (("required", True), ("min_len", 1), ("prefix", "modules:")),
    },
    "agentic_mesh_protocol.module.v1.GetModuleInputResponse": {
        "input_schema": (("required", True),),
    },
    "agentic_mesh_protocol.module.v1.GetModuleOutputRequest": {
        "module_id": (("required", True), ("min_len", 1), ("prefix", "modules:")),
    },
    "agentic_mesh_protocol.module.v1.GetModuleOutputResponse": {
        "output_schema": (("required", True),),
    },
    "agentic_mesh_protocol.module.v1.GetModuleSecretRequest": {
        "module_id": (("required", True), ("min_len", 1), ("prefix", "modules:")),
    },
    "agentic_mesh_protocol.module.v1.GetModuleSecretResponse": {
        "secret_schema": (("required", True),),
    },
    "agentic_mesh_protocol.module.v1.GetModuleSelectInputRequest": {
        "module_id": (("required", True), ("min_len", 1), ("prefix", "modules:")),
    },
    "agentic_mesh_protocol.module.v1.GetModuleSelectInputResponse": {
        "select_input_schema": (("required", True),),
    },
    "agentic_mesh_protocol.module.v1.GetModuleSetupRequest": {
        "module_id": (("required", True), ("min_len", 1), ("prefix", "modules:")),
    },
    "agentic_mesh_protocol.module.v1.GetModuleSetupResponse": {
        "setup_schema": (("required", True),),
    },
    "agentic_mesh_protocol.module.v1.ConfigSetupModuleRequest": {
        "setup_version": (("required", True),),
        "content": (("required", True),),
        "mission_id": (("required", True), ("min_len", 1), ("prefix", "missions:")),
    },
    "agentic_mesh_protocol.module.v1.StartModuleRequest": {
        "input": (("required", True),),
        "setup_id": (("required", True), ("min_len", 1), ("prefix", "setups:")),
        "mission_id": (("required", True), ("min_len", 1), ("prefix", "missions:")),
    },
    "agentic_mesh_protocol.module.v1.StartModuleResponse": {
        "output": (("required", True),),
        "job_id": (("required", True), ("min_len", 1), ("prefix", "jobs:")),
    },
    "agentic_mesh_protocol.module.v1.StopModuleRequest": {
        "job_id": (("required", True), ("min_len", 1), ("prefix", "jobs:")),
    },
    "agentic_mesh_protocol.module.v1.StopModuleResponse": {
        "job_id": (("prefix", "jobs:"),),
    },
    "agentic_mesh_protocol.module.v1.GetModuleStatusRequest": {
        "job_id": (("required", True), ("min_len", 1), ("prefix", "jobs:")),
    },
    "agentic_mesh_protocol.module.v1.GetModuleStatusResponse": {
        "status": (("required", True), ("defined_only", True)),
        "job_id": (("required", True), ("min_len", 1), ("prefix", "jobs:")),
    },
    "agentic_mesh_protocol.module.v1.JobInfo": {
        "job_id": (("required", True), ("min_len", 1), ("prefix", "jobs:")),
        "job_status": (("required", True), ("defined_only", True)),
    },
    "agentic_mesh_protocol.module_registry.v1.DiscoverInfoRequest": {
        "module_id": (("required", True), ("min_len", 1)),
    },
    "agentic_mesh_protocol.module_registry.v1.DiscoverInfoResponse": {
        "module_id": (("required", True), ("min_len", 1)),
        "module_type": (("required", True), ("in", ["trigger", "tool", "kin", "view"])),
        "address": (("required", True), ("min_len", 1)),
        "port": (("required", True), ("gte", 1), ("lte", 65535)),
        "version": (("required", True), ("min_len", 1)),
    },
    "agentic_mesh_protocol.module_registry.v1.DiscoverSearchRequest": {
        "module_type": (("required", True), ("in", ["trigger", "tool", "kin", "view"])),
        "name": (("required", True), ("min_len", 1)),
        "description": (("required", True), ("min_len", 1)),
    },
    "agentic_mesh_protocol.module_registry.v1.Metadata": {
        "name": (("required", True), ("min_len", 1)),
        "description": (("required", True), ("min_len", 1)),
    },
    "agentic_mesh_protocol.module_registry.v1.Tag": {
        "tag": (("required", True), ("min_len", 1)),
    },
    "agentic_mesh_protocol.module_registry.v1.DeregisterRequest": {
        "module_id": (("required", True), ("min_len", 1)),
    },
    "agentic_mesh_protocol.module_registry.v1.RegisterRequest": {
        "module_id": (("required", True), ("min_len", 1)),
        "module_type": (("required", True), ("in", ["trigger", "tool", "kin", "view"])),
        "address": (("required", True), ("min_len", 1)),
        "port": (("gte", 1), ("lte", 65535)),
        "version": (("required", True), ("min_len", 1)),
    },
    "agentic_mesh_protocol.module_registry.v1.ModuleStatusRequest": {
        "module_id": (("required", True), ("min_len", 1), ("prefix", "modules:")),
    },
    "agentic_mesh_protocol.module_registry.v1.ModuleStatusResponse": {
        "module_id": (("required", True), ("min_len", 1), ("prefix", "modules:")),
    },
    "agentic_mesh_protocol.module_registry.v1.UpdateStatusRequest": {
        "module_id": (("required", True), ("min_len", 1)),
    },
    "agentic_mesh_protocol.registry.v1.ModuleDescriptor": {
        "id": (("required", True), ("min_len", 1), ("prefix", "modules:")),
        "name": (("required", True), ("min_len", 1)),
        "module_type": (("required", True), ("not_in", [0])),
        "version": (("required", True), ("min_len", 1)),
        "address": (("required", True), ("min_len", 1)),
        "port": (("required", True), ("gte", 1), ("lte", 65535)),
        "status": (("required", True), ("not_in", [0])),
        "visibility": (("required", True), ("not_in", [0])),
        "organization_id": (("required", True), ("min_len", 1), ("prefix", "organizations:")),
        "owner_id": (("required", True), ("min_len", 1), ("prefix", "users:")),
        "input_schema": (("required", True),),
        "output_schema": (("required", True),),
        "setup_schema": (("required", True),),
        "secret_schema": (("required", True),),
        "cost_schema": (("required", True),),
        "documentation": (("required", True), ("min_len", 1)),
        "created_at": (("required", True),),
        "updated_at": (("required", True),),
    },
    "agentic_mesh_protocol.registry.v1.SetupDescriptor": {
        "id": (("required", True), ("min_len", 1), ("prefix", "setups:")),
        "name": (("required", True), ("min_len", 1)),
        "documentation": (("required", True), ("min_len", 1)),
        "status": (("required", True), ("not_in", [0])),
        "visibility": (("required", True), ("not_in", [0])),
        "organization_id": (("required", True), ("min_len", 1), ("prefix", "organizations:")),
        "owner_id": (("required", True), ("min_len", 1), ("prefix", "users:")),
        "card_id": (("min_len", 1), ("prefix", "cards:")),
        "module_id": (("required", True), ("min_len", 1), ("prefix", "modules:")),
        "setup_version_id": (("required", True), ("min_len", 1), ("prefix", "setup_versions:")),
        "setup_version": (("required", True), ("min_len", 1)),
        "config": (("required", True),),
        "module": (("required", True),),
    },
    "agentic_mesh_protocol.registry.v1.DiscoverModulesRequest": {
        "organization_id": (("min_len", 1), ("prefix", "organizations:")),
        "module_types": (("each.not_in", [0]),),
        "status": (("each.not_in", [0]),),
        "visibility": (("each.not_in", [0]),),
        "query": (("min_len", 1),),
        "limit": (("gte", 1), ("lte", 100)),
        "offset": (("gte", 0),),
    },
    "agentic_mesh_protocol.registry.v1.DiscoverModulesResponse": {
        "modules": (("each.required", True),),
    },
    "agentic_mesh_protocol.registry.v1.DiscoverSetupsRequest": {
        "organization_id": (("min_len", 1), ("prefix", "organizations:")),
        "visibility": (("each.not_in", [0]),),
        "status": (("each.not_in", [0]),),
        "module_types": (("each.not_in", [0]),),
        "query": (("min_len", 1),),
        "module_ids": (("each.min_len", 1), ("each.prefix", "modules:")),
        "limit": (("gte", 1), ("lte", 100)),
        "offset": (("gte", 0),),
    },
    "agentic_mesh_protocol.registry.v1.DiscoverSetupsResponse": {
        "setups": (("each.required", True),),
    },
    "agentic_mesh_protocol.registry.v1.GetModuleRequest": {
        "module_id": (("required", True), ("min_len", 1), ("prefix", "modules:")),
    },
    "agentic_mesh_protocol.registry.v1.GetSetupRequest": {
        "setup_id": (("required", True), ("min_len", 1), ("prefix", "setups:")),
    },
    "agentic_mesh_protocol.registry.v1.HeartbeatRequest": {
        "module_id": (("required", True), ("min_len", 1), ("prefix", "modules:")),
    },
    "agentic_mesh_protocol.registry.v1.HeartbeatResponse": {
        "status": (("required", True), ("not_in", [0])),
    },
    "agentic_mesh_protocol.registry.v1.RegisterModuleRequest": {
        "module_id": (("required", True), ("min_len", 1), ("prefix", "modules:")),
        "address": (("required", True), ("min_len", 1)),
        "port": (("required", True), ("gte", 1), ("lte", 65535)),
        "version": (("required", True), ("min_len", 1)),
    },
    "agentic_mesh_protocol.registry.v1.RegisterModuleResponse": {
        "module": (("required", True),),
    },
    "agentic_mesh_protocol.setup.v1.CreateSetupRequest": {
        "name": (("required", True),),
        "organisation_id": (("required", True),),
        "owner_id": (("required", True),),
        "module_id": (("required", True),),
        "status": (("required", True),),
    },
    "agentic_mesh_protocol.setup.v1.CreateSetupVersionRequest": {
        "setup_id": (("required", True),),
        "version": (("required", True),),
    },
    "agentic_mesh_protocol.setup.v1.DeleteSetupRequest": {
        "setup_id": (("required", True),),
    },
    "agentic_mesh_protocol.setup.v1.DeleteSetupVersionRequest": {
        "setup_version_id": (("required", True),),
    },
    "agentic_mesh_protocol.setup.v1.GetSetupRequest": {
        "setup_id": (("required", True),),
    },
    "agentic_mesh_protocol.setup.v1.ListSetupsRequest": {
        "limit": (("gte", 1), ("lte", 1000)),
        "offset": (("gte", 0),),
    },
    "agentic_mesh_protocol.setup.v1.ListSetupsResponse": {
        "total_count": (("gte", 0),),
    },
    "agentic_mesh_protocol.setup.v1.Setup": {
        "id": (("required", True),),
        "name": (("required", True),),
        "organisation_id": (("required", True),),
        "owner_id": (("required", True),),
        "module_id": (("required", True),),
        "status": (("required", True),),
    },
    "agentic_mesh_protocol.setup.v1.SetupVersion": {
        "id": (("required", True),),
        "setup_id": (("required", True),),
        "version": (("required", True),),
        "content": (("required", True),),
    },
    "agentic_mesh_protocol.setup.v1.UpdateSetupRequest": {
        "setup_id": (("required", True),),
        "name": (("required", True),),
        "status": (("required", True),),
    },
    "agentic_mesh_protocol.setup.v1.UpdateSetupVersionRequest": {
        "setup_version_id": (("required", True),),
        "version": (("required", True),),
        "content": (("required", True),),
    },
    "agentic_mesh_protocol.storage.v1.ListRecordsRequest": {
        "context": (("required", True), ("pattern", "^(missions|setup_versions):.+")),
        "collection": (("required", True),),
    },
    "agentic_mesh_protocol.storage.v1.ListRecordsResponse": {
        "records": (("required", True),),
    },
    "agentic_mesh_protocol.storage.v1.ReadRecordRequest": {
        "context": (("required", True), ("pattern", "^(missions|setup_versions):.+")),
        "collection": (("required", True),),
        "record_id": (("required", True),),
    },
    "agentic_mesh_protocol.storage.v1.ReadRecordResponse": {
        "success": (("required", True),),
        "stored_data": (("required", True),),
    },
    "agentic_mesh_protocol.storage.v1.RemoveCollectionRequest": {
        "context": (("required", True), ("pattern", "^(missions|setup_versions):.+")),
        "collection": (("required", True),),
    },
    "agentic_mesh_protocol.storage.v1.RemoveCollectionResponse": {
        "success": (("required", True),),
    },
    "agentic_mesh_protocol.storage.v1.RemoveRecordRequest": {
        "context": (("required", True), ("pattern", "^(missions|setup_versions):.+")),
        "collection": (("required", True),),
        "record_id": (("required", True),),
    },
    "agentic_mesh_protocol.storage.v1.RemoveRecordResponse": {
        "success": (("required", True),),
    },
    "agentic_mesh_protocol.storage.v1.StorageRecord": {
        "data": (("required", True),),
        "context": (("required", True), ("pattern", "^(missions|setup_versions):.+")),
        "collection": (("required", True),),
        "record_id": (("required", True),),
        "creation_date": (("required", True),),
        "update_date": (("required", True),),
        "data_type": (("required", True),),
    },
    "agentic_mesh_protocol.storage.v1.StoreRecordRequest": {
        "data": (("required", True),),
        "context": (("required", True), ("pattern", "^(missions|setup_versions):.+")),
        "collection": (("required", True),),
        "record_id": (("required", True),),
        "data_type": (("required", True),),
    },
    "agentic_mesh_protocol.storage.v1.StoreRecordResponse": {
        "success": (("required", True),),
        "stored_data": (("required", True),),
    },
    "agentic_mesh_protocol.storage.v1.UpdateRecordRequest": {
        "data": (("required", True),),
        "context": (("required", True), ("pattern", "^(missions|setup_versions):.+")),
        "collection": (("required", True),),
        "record_id": (("required", True),),
    },
    "agentic_mesh_protocol.storage.v1.UpdateRecordResponse": {
        "success": (("required", True),),
        "stored_data": (("required", True),),
    },
    "agentic_mesh_protocol.task_manager.v1.GetSignalsRequest": {
        "task_ids": (("required", True), ("min_items", 1)),
    },
    "agentic_mesh_protocol.task_manager.v1.GetSignalsResponse": {
        "tasks": (("required", True),),
    },
    "agentic_mesh_protocol.task_manager.v1.ListHeartbeatsRequest": {
        "task_ids": (("required", True), ("min_items", 1), ("each.cel.task_id_length", "this.size() >= 1")),
    },
    "agentic_mesh_protocol.task_manager.v1.ListHeartbeatsResponse": {
        "total_count": (("required", True), ("gte", 0)),
        "tasks": (("required", True),),
    },
    "agentic_mesh_protocol.task_manager.v1.SendSignalsRequest": {
        "tasks": (("required", True), ("min_items", 1)),
    },
    "agentic_mesh_protocol.task_manager.v1.SendSignalsResponse": {
        "success": (("required", True),),
        "tasks": (("required", True),),
    },
    "agentic_mesh_protocol.task_manager.v1.Task": {
        "task_id": (("required", True), ("cel.task_id_length", "this.size() >= 1")),
        "mission_id": (
            ("required", True),
            ("cel.mission_id_prefix", "this.startsWith('missions:')"),
            ("cel.mission_id_length", "this.size() >= 10"),
        ),
        "setup_id": (
            ("required", True),
            ("cel.setup_id_prefix", "this.startsWith('setups:')"),
            ("cel.setup_id_length", "this.size() >= 8"),
        ),
        "setup_version_id": (
            ("required", True),
            ("cel.setup_version_id_prefix", "this.startsWith('setup_versions:')"),
            ("cel.setup_version_id_length", "this.size() >= 16"),
        ),
        "action": (("required", True), ("cel.action_length", "this.size() >= 1")),
        "cancellation_reason": (("required", True), ("cel.cancellation_reason_length", "this.size() >= 1")),
        "created_at": (("required", True),),
    },
    "agentic_mesh_protocol.user_profile.v1.GetUserProfileRequest": {
        "mission_id": (("required", True), ("prefix", "missions:")),
    },
    "agentic_mesh_protocol.user_profile.v1.GetUserProfileResponse": {
        "success": (("required", True),),
        "user_profile": (("required", True),),
    },
    "agentic_mesh_protocol.user_profile.v1.UserProfile": {
        "user_id": (("required", True), ("prefix", "users:")),
        "organisation_id": (("required", True), ("prefix", "organisations:")),
        "email": (("required", True), ("email", True)),
        "first_name": (("required", True),),
        "last_name": (("required", True),),
        "creation_date": (("required", True),),
        "update_date": (("required", True),),
        "locale": (("required", True),),
    },
    "dk_trio.provider.v1.PutUserProfileRequest": {
        "mission_id": (("required", True), ("prefix", "missions:")),
        "user_profile": (("required", True),),
    },
}
