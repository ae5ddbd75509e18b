"""Schema documents of a module: what it takes, sends, is set up with and charges."""

from dk_trio.module._references import inline_refs as inline_refs

from ._documents import Document as Document
from ._documents import config_setup_document as config_setup_document
from ._documents import cost_document as cost_document
from ._documents import input_document as input_document
from ._documents import output_document as output_document
from ._documents import secret_document as secret_document
from ._documents import select_document as select_document
from ._documents import setup_document as setup_document
from ._extended import extended_model as extended_model
from ._llm import llm_ready_schema as llm_ready_schema
from ._select import SelectSchema as SelectSchema
from ._split import SchemaSplitter as SchemaSplitter
from ._split import without_ui as without_ui
from .cache import SchemaCache as SchemaCache
