"""The lab's kube-controller-manager and scheduler: level-triggered loops over shared informers.

Every controller is a pure decision (``*_plan.py``, ``scheduling.py``, ``garbage.py`` …: values in, actions
out) and a thin loop that gathers the values and hands the actions to ``writer``.
"""

from towpath.lab.controllers.manager import run
from towpath.lab.controllers.settings import Settings

__all__ = ["Settings", "run"]
