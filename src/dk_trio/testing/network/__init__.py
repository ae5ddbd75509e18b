"""A network in memory and in virtual time, whose every delay and fault comes from a seed.

It stands between the ends of a system under test, in one run of Trio, in place of TCP. It knows bytes and names of
hosts; what is spoken over it is not its business.
"""

from ._conditions import Conditions as Conditions
from ._connection import NetworkStatistics as NetworkStatistics
from ._network import Network as Network
from ._stream import NetworkListener as NetworkListener
from ._stream import NetworkStream as NetworkStream
