"""Setups: which of their fields a form sees and which a job, and fields whose schema is made when it is asked for."""

from ._clean import DroppedFieldError as DroppedFieldError
from ._clean import clean_model as clean_model
from ._conditional import Conditional as Conditional
from ._conditional import ConditionalField as ConditionalField
from ._conditional import ConditionalSchemaMixin as ConditionalSchemaMixin
from ._conditional import get_conditional_metadata as get_conditional_metadata
from ._conditional import has_conditional as has_conditional
from ._dynamic import DEFAULT_FETCH_TIMEOUT as DEFAULT_FETCH_TIMEOUT
from ._dynamic import Dynamic as Dynamic
from ._dynamic import DynamicField as DynamicField
from ._dynamic import Fetcher as Fetcher
from ._dynamic import ResolveResult as ResolveResult
from ._dynamic import get_dynamic_metadata as get_dynamic_metadata
from ._dynamic import get_fetchers as get_fetchers
from ._dynamic import has_dynamic as has_dynamic
from ._dynamic import resolve as resolve
from ._dynamic import resolve_safe as resolve_safe
from ._model import SetupModel as SetupModel
from ._template import Fetches as Fetches
from ._template import Template as Template
from ._template import json_schema as json_schema
from ._template import template_of as template_of
