"""Who may call a server, and what can be read on the way: TLS, tokens, authorization, limits of one client.

    security = Security(settings.security)

`ModuleServer` and `Provider` make one of their settings and use it; `ClientSecurity` is the part of those who only
call. Nothing is on by default, and nothing is reachable beyond this machine by default.
"""

from ._authorization import Authorization as Authorization
from ._authorization import Authorize as Authorize
from ._client import ClientSecurity as ClientSecurity
from ._client import exposed as exposed
from ._identity import Identity as Identity
from ._server import Security as Security
from ._server import SecurityStatistics as SecurityStatistics
