"""Outputs as AG-UI events, for callers that are user interfaces. Needs the extra `dk-trio[agui]`.

A handler seldom needs more than `self.send_message(context, event)` with an event of `dk_trio.module.events`: a
`Translator` keeps what goes out a legal sequence of AG-UI. Events that agents do not have, such as snapshots of state,
are made with `ag_ui.core` and sent as `output_of(event)`. A module says in its output format that it sends them:
`DataModel[AnyAgUiOutput]`, or with outputs of its own, `DataModel[AnyAgUiOutput | Reply]`.

`dk_trio.module` does not import this package. `ag_ui` takes a third of a second to import, so a module that uses it
imports this package at its top; otherwise the first event pays, and the event loop stands still meanwhile.

Works with ag-ui-protocol 0.1.14 and later, 1.x included. Which events there are depends on its version: 1.x has no
`THINKING_*`, and from 0.1.22 on there are `SUBAGENT_*`.
"""

from ._outputs import OUTPUTS as OUTPUTS
from ._outputs import AgUiOutput as AgUiOutput
from ._outputs import AnyAgUiOutput as AnyAgUiOutput
from ._outputs import output_of as output_of
from ._package import AgUiMissingError as AgUiMissingError
from ._stream import AgUiStream as AgUiStream
from ._translator import Translator as Translator
