"""One module of a server: its code as it was loaded last, and what stays when that is loaded anew.

A server has one `HostedModule` for each module id. What belongs to the id stays for the life of the server: the setups
that are cached and were configured, the entry in the registry. What follows from the code is an `Edition`, made as a
whole by `prepare` and put in its predecessor's place by `take`. Calls that began before go on with the edition that
they began with: nobody else holds it, so it is gone with the last of them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final

import trio

from dk_trio.admission import Admission
from dk_trio.config_setup import ConfigSetup
from dk_trio.errors import ModuleDefinitionError, SettingError, SetupFileError
from dk_trio.hooks import JobHook
from dk_trio.jobs import Jobs
from dk_trio.lifecycle import SessionOptions
from dk_trio.module import ArchetypeModule, Environment, ModuleDefinition, ToolModule, TrioModule
from dk_trio.servicer import ModuleServicer
from dk_trio.services.channels import Connect
from dk_trio.services.config import ServicesConfig, SharedServices
from dk_trio.services.local.setup import DEFAULT_VERSION, LocalSetup
from dk_trio.services.registry import ModuleInfo, RegistryModuleType, SetupInfo, bare_module_id
from dk_trio.services.setup import SetupSource, SetupVersion
from dk_trio.services.setup_cache import SetupCache
from dk_trio.services.strategy import ServicesMode
from dk_trio.settings import Settings
from dk_trio.setup_source import setup_source
from dk_trio.siblings import JobDirectory
from dk_trio.signals import SignalExchange

ModuleClass = type[TrioModule[Any, Any, Any, Any]]

_NO_FILE_NAME: Final = re.compile(r"[^A-Za-z0-9._+-]+")
_LONGEST_NAME: Final = 100  # of a directory; file systems take 255 bytes
_KEEP_DATA: Final = frozenset({"cost", "filesystem", "setup", "snapshot", "storage"})
_KEEP_DATA_REMOTE: Final = frozenset({"snapshot"})  # the others are the provider's
_UNKNOWN: Final = "unknown"  # the id of a module that names none
_TYPES: Final = ((ToolModule, RegistryModuleType.TOOL), (ArchetypeModule, RegistryModuleType.ARCHETYPE))


@dataclass(frozen=True, kw_only=True, eq=False)
class Surroundings:
    """What the modules of one server have in common."""

    settings: Settings
    shared: SharedServices
    admission: Admission
    signals: SignalExchange
    jobs: Jobs
    directory: JobDirectory
    config_setups: set[ConfigSetup]
    threads: trio.CapacityLimiter
    hooks: Sequence[JobHook]
    session_options: SessionOptions
    accepting: Callable[[], bool]


@dataclass(frozen=True, kw_only=True, eq=False)
class Edition:
    """A module's code as it was loaded at one time, ready to be served.

    Attributes:
        definition: What the code says.
        servicer: Answers its calls.
        source: Where its setups come from.
        keeps_data: Whether its services write something that has to be opened before.
    """

    definition: ModuleDefinition
    servicer: ModuleServicer
    source: SetupSource
    keeps_data: bool

    @property
    def module_id(self) -> str:
        """The id in the registry, where a module that names none goes by its name."""
        return module_id_of(self.definition)


class HostedModule:
    """One module of a server.

    Args:
        definition: The module, see `define`.
        surroundings: What it shares with the other modules.
        setups: Where its setups come from, in place of those of its file, the stored ones and its default.
        setup_file: A JSON file of its setups by id.
        strict_setup: An unknown setup id is NOT_FOUND also when the module has a default setup.

    Attributes:
        setups: What jobs get their setups from.
        edition: The code that new calls run.
        connect: Opens a connection to it from this process; set by the server.
        found: Whether the registry has taken it, once.
        opened_at: Since when it is served, on Trio's clock.

    Raises:
        ModuleDefinitionError: Its services are not what it says.
        SetupFileError: The setup file cannot be used.
    """

    connect: Connect

    def __init__(
        self,
        definition: ModuleDefinition,
        surroundings: Surroundings,
        *,
        setups: SetupSource | None = None,
        setup_file: Path | None = None,
        strict_setup: bool = False,
    ) -> None:
        self._surroundings = surroundings
        self._given = setups
        self._setup_file = setup_file
        self._strict = strict_setup
        lifecycle = surroundings.settings.lifecycle
        self.setups = SetupCache(self, max_entries=lifecycle.setup_cache_max, ttl=lifecycle.setup_cache_ttl)
        self.edition = self.prepare(definition)
        self.found = False
        self.opened_at = inf
        self.standing: Callable[[], dict[str, str]] = dict
        self._changed = trio.Event()

    def __repr__(self) -> str:
        return f"<HostedModule {self.id}>"

    @property
    def id(self) -> str:
        """Its id in the registry; always the same."""
        return self.edition.module_id

    @property
    def definition(self) -> ModuleDefinition:
        """What its code says."""
        return self.edition.definition

    @property
    def name(self) -> str:
        """Its name."""
        return self.edition.definition.name

    # -- its code -----------------------------------------------------------------------------------------------------

    def prepare(self, definition: ModuleDefinition) -> Edition:
        """Make everything that serves a module, without serving it. May run in a thread.

        Raises:
            ModuleDefinitionError: Its services are not what it says.
            SetupFileError: The setup file cannot be used with it.
        """
        around = self._surroundings
        settings, module = around.settings, definition.cls
        config = ServicesConfig(
            module.services_config_strategies,
            module.services_config_params,
            mode=ServicesMode(settings.services.mode),
            owner=definition.name,
        )
        offered = around.shared.offered()
        keeping = _KEEP_DATA if config.mode is ServicesMode.LOCAL else _KEEP_DATA_REMOTE
        keeps_data = not config.rehearse(offered).isdisjoint(keeping)
        source: SetupSource = self._given or setup_source(
            definition,
            module_id=module_id_of(definition),
            setup_file=self._setup_file,
            strict=self._strict,
            config=config,
            offered=offered,
        )
        servicer = ModuleServicer(
            definition,
            jobs=around.jobs,
            directory=around.directory,
            config_setups=around.config_setups,
            setups=self.setups,
            admission=around.admission,
            signals=around.signals,
            environment=Environment(
                settings=settings.services, config=config, shared=around.shared, signals=around.signals
            ),
            accepting=around.accepting,
            store=source.store if isinstance(source, LocalSetup) else None,
            configured=lambda setup_id: around.shared.platform.registry.put_setup(self._setup_info(setup_id)),
            session_options=around.session_options,
            settings=settings.lifecycle,
            hooks=around.hooks,
            threads=around.threads,
        )
        return Edition(definition=definition, servicer=servicer, source=source, keeps_data=keeps_data)

    def check(self, edition: Edition) -> None:
        """Refuse an edition of another module.

        Raises:
            ModuleDefinitionError: Its id is another one.
        """
        if bare_module_id(edition.module_id) != bare_module_id(self.id):
            raise ModuleDefinitionError(
                f"The id of {edition.definition.name} is {edition.module_id!r} now and was {self.id!r}.",
                hint="Clients and the registry know it by its id: start the server again.",
            )

    def take(self, edition: Edition) -> None:
        """Serve another edition of the same module from now on. Calls that are under way stay with theirs."""
        old, self.edition = self.edition, edition
        if isinstance(edition.source, LocalSetup):
            if isinstance(old.source, LocalSetup):
                edition.source.adopt(old.source)
            self.setups.clear()  # contents of a file, and defaults; what was configured is in the source
        checks = edition.servicer.health_checks
        checks.opened_at, checks.standing = self.opened_at, self.standing
        registry = self._surroundings.shared.platform.registry
        registry.renew(self.info())
        for setup in self._setup_infos():
            registry.put_setup(setup)
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Wait until another edition was taken."""
        await self._changed.wait()

    # -- its setups ---------------------------------------------------------------------------------------------------

    async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
        """See `SetupSource.get_setup`: that of the code that is served now."""
        return await self.edition.source.get_setup(setup_id, mission_id)

    def put(self, version: SetupVersion) -> None:
        """See `SetupStore.put`; a source that takes nothing is not told."""
        put = getattr(self.edition.source, "put", None)
        if put is not None:
            put(version)

    def knows(self, setup_id: str) -> bool:
        """Whether a setup is its own, as far as that can be told without asking anybody."""
        source = self.edition.source
        if isinstance(source, LocalSetup) and source.knows(setup_id):
            return True
        held = self.setups.held(setup_id)
        return held is not None and held.id != DEFAULT_VERSION

    async def owner(self, setup_id: str) -> str:
        """The module that a stored setup is for; empty when none is stored under this id.

        Raises:
            SetupUnavailableError: It cannot be told now.
        """
        owner = getattr(self.edition.source, "owner", None)
        found: str = "" if owner is None else await owner(setup_id)
        return found

    # -- its entry in the registry ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Jobs may start, and other modules of this process find this one, for the length of the block."""
        platform = self._surroundings.shared.platform
        self.opened_at = self.edition.servicer.health_checks.opened_at = trio.current_time()
        self.edition.servicer.health_checks.standing = self.standing
        async with self.setups.opened():
            with (
                platform.registry.serving(self.info(), connect=self.connect, setups=self._setup_infos()),
                platform.setups.watched(self._stored),
            ):
                yield

    def info(self, address: str = "", port: int = 0) -> ModuleInfo:
        """What a registry is told."""
        definition = self.edition.definition
        kind = next((kind for cls, kind in _TYPES if issubclass(definition.cls, cls)), RegistryModuleType.UNSPECIFIED)
        return ModuleInfo(
            module_id=self.id,
            module_type=kind,
            address=address,
            port=port,
            version=str(definition.cls.metadata.get("version", "0.0.0")),
            module_name=definition.name,
            documentation=definition.cls.description,
        )

    def setup_ids(self) -> list[str]:
        """The ids of the setups that are known by name; those that are stored are not among them."""
        source = self.edition.source
        return source.ids() if isinstance(source, LocalSetup) else []

    def _setup_infos(self) -> list[SetupInfo]:
        return [self._setup_info(setup_id) for setup_id in self.setup_ids()]

    def _setup_info(self, setup_id: str) -> SetupInfo:
        definition = self.edition.definition
        return SetupInfo(
            setup_id=setup_id, module_id=self.id, name=definition.name, documentation=definition.cls.description
        )

    def _stored(self, setup_id: str, module_id: str) -> None:
        """A stored setup has changed: the next job runs with what is stored now."""
        source = self.edition.source
        if isinstance(source, LocalSetup) and bare_module_id(module_id) == bare_module_id(self.id):
            source.forget(setup_id)
            self.setups.forget(setup_id)


def define(module: ModuleClass, settings: Settings) -> ModuleDefinition:
    """Check a module class. May run in a thread.

    Raises:
        ModuleDefinitionError: The class is not complete.
    """
    return ModuleDefinition.of(module, module_id=settings.module.module_id)


def module_id_of(definition: ModuleDefinition) -> str:
    """The id in the registry, where a module that names none goes by its name."""
    return definition.name if definition.id == _UNKNOWN else definition.id


def _place(definition: ModuleDefinition) -> str:
    return f"{definition.cls.__module__}.{definition.cls.__qualname__}"


def defined(modules: Iterable[ModuleClass], settings: Settings) -> dict[str, ModuleDefinition]:
    """The modules by their ids without prefix.

    Raises:
        ModuleDefinitionError: A class is not complete, or two have the same id.
        SettingError: DIGITALKIN_MODULE_ID is set, and there are several modules.
        ValueError: There is none.
    """
    definitions: dict[str, ModuleDefinition] = {}
    for number, module in enumerate(modules):
        if number and settings.module.module_id is not None:
            raise SettingError(
                f"DIGITALKIN_MODULE_ID={settings.module.module_id!r} is the id of one module, and several are served.",
                hint="Unset it, and give each module its own in its `metadata`.",
            )
        definition = define(module, settings)
        module_id = module_id_of(definition)
        other = definitions.setdefault(bare_module_id(module_id), definition)
        if other is not definition:
            raise ModuleDefinitionError(
                f"{_place(other)} and {_place(definition)} have the same id, {module_id!r}.",
                hint="Calls find a module by its id: give each its own in its `metadata`.",
            )
    if not definitions:
        raise ValueError("a server needs a module")
    return definitions


def files_by_module(setup_file: Path | Mapping[str, Path] | None, modules: Collection[str]) -> dict[str, Path]:
    """The setup files by module id without prefix.

    Raises:
        SetupFileError: One is for no module, or there are several and it is not said for which.
    """
    if setup_file is None:
        return {}
    if isinstance(setup_file, Path):
        if len(modules) > 1:
            raise SetupFileError(
                f"The setup file {setup_file} names no module, and there are several: {', '.join(modules)}.",
                hint="Give each its own: --setup MODULE=FILE.json.",
            )
        return dict.fromkeys(modules, setup_file)
    files = {bare_module_id(module_id): path for module_id, path in setup_file.items()}
    for module_id, path in files.items():
        if module_id not in modules:
            raise SetupFileError(
                f"The setup file {path} is for the module {module_id!r}, which is not served.",
                hint=f"Served are {', '.join(modules)}.",
            )
    return files


def data_directory(data_dir: Path | None, modules: Sequence[str]) -> Path | None:
    """A directory for the modules that are served together: two servers that start in one place do not meet in it."""
    if data_dir is None:
        return None
    names = [_NO_FILE_NAME.sub("-", module_id).strip(".-") or "module" for module_id in sorted(modules)]
    name = "+".join(names)
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{zlib.crc32(name.encode()):08x}"
    return data_dir / name
