"""The spool: one class, made of what it does.

``file`` opens and writes the file, of which ``schema`` knows the tables; ``destinations`` knows who gets what;
``intake`` imports, within the bounds of ``room``; ``leases`` gives out and settles; ``letters`` keeps what was
set aside; ``narrowing`` takes back what may not be shared any more; ``policies`` what receivers ask for;
``accounts`` what they are told of losses; ``ledgers`` answers questions. Knows nothing of reporters or consent.
"""

from __future__ import annotations

from .accounts import Accounts
from .intake import Intake
from .leases import Leases
from .ledgers import Ledgers
from .letters import Letters
from .narrowing import Narrowing
from .policies import Policies


class Spool(Intake, Leases, Letters, Narrowing, Policies, Accounts, Ledgers):
    """An open spool. Not shared between threads. Raises StorageError where it cannot be opened."""
