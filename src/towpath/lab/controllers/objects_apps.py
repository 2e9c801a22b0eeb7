"""``apps/v1`` objects as the controllers read them. Pod templates stay as written."""

import msgspec

from towpath.lab.controllers.objects_meta import Body, Condition, LabelSelector, Meta


class RollingUpdate(msgspec.Struct, frozen=True, rename="camel"):
    """Pods above and below the wanted number during an update: a count, or a percentage as text."""

    max_surge: int | str | None = None
    max_unavailable: int | str | None = None
    partition: int | None = None


class Strategy(msgspec.Struct, frozen=True, rename="camel"):
    """A Deployment's ``strategy``, a DaemonSet's or StatefulSet's ``updateStrategy``."""

    type: str = "RollingUpdate"
    rolling_update: RollingUpdate | None = None


class DeploymentSpec(msgspec.Struct, frozen=True, rename="camel"):
    """``apps/v1.DeploymentSpec``."""

    replicas: int | None = None
    selector: LabelSelector = LabelSelector()
    template: Body = {}
    strategy: Strategy = Strategy()
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None
    paused: bool = False
    progress_deadline_seconds: int | None = None


class DeploymentStatus(msgspec.Struct, frozen=True, rename="camel"):
    """``apps/v1.DeploymentStatus``."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    collision_count: int | None = None
    conditions: list[Condition] | None = None


class Deployment(msgspec.Struct, frozen=True):
    """``apps/v1.Deployment``."""

    metadata: Meta = Meta()
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


class ReplicaSetSpec(msgspec.Struct, frozen=True, rename="camel"):
    """``apps/v1.ReplicaSetSpec``."""

    replicas: int | None = None
    selector: LabelSelector = LabelSelector()
    template: Body = {}
    min_ready_seconds: int = 0


class ReplicaSetStatus(msgspec.Struct, frozen=True, rename="camel"):
    """``apps/v1.ReplicaSetStatus``."""

    replicas: int = 0
    fully_labeled_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    observed_generation: int = 0
    conditions: list[Condition] | None = None


class ReplicaSet(msgspec.Struct, frozen=True):
    """``apps/v1.ReplicaSet``."""

    metadata: Meta = Meta()
    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: ReplicaSetStatus = ReplicaSetStatus()

    @property
    def replicas(self) -> int:
        """The wanted number; 1 where it is not given."""
        return 1 if self.spec.replicas is None else self.spec.replicas


class DaemonSetSpec(msgspec.Struct, frozen=True, rename="camel"):
    """``apps/v1.DaemonSetSpec``."""

    selector: LabelSelector = LabelSelector()
    template: Body = {}
    update_strategy: Strategy = Strategy()
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None


class DaemonSetStatus(msgspec.Struct, frozen=True, rename="camel"):
    """``apps/v1.DaemonSetStatus``."""

    current_number_scheduled: int = 0
    number_misscheduled: int = 0
    desired_number_scheduled: int = 0
    number_ready: int = 0
    observed_generation: int = 0
    updated_number_scheduled: int = 0
    number_available: int = 0
    number_unavailable: int = 0
    collision_count: int | None = None


class DaemonSet(msgspec.Struct, frozen=True):
    """``apps/v1.DaemonSet``."""

    metadata: Meta = Meta()
    spec: DaemonSetSpec = DaemonSetSpec()
    status: DaemonSetStatus = DaemonSetStatus()


class ControllerRevision(msgspec.Struct, frozen=True):
    """``apps/v1.ControllerRevision``: one pod template of a DaemonSet or StatefulSet, kept for undo."""

    metadata: Meta = Meta()
    revision: int = 0
    data: Body = {}


class StatefulSetSpec(msgspec.Struct, frozen=True, rename="camel"):
    """``apps/v1.StatefulSetSpec``."""

    replicas: int | None = None
    selector: LabelSelector = LabelSelector()
    template: Body = {}
    service_name: str = ""
    volume_claim_templates: list[Body] | None = None
    pod_management_policy: str = "OrderedReady"
    update_strategy: Strategy = Strategy()
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None


class StatefulSetStatus(msgspec.Struct, frozen=True, rename="camel"):
    """``apps/v1.StatefulSetStatus``."""

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    current_replicas: int = 0
    updated_replicas: int = 0
    current_revision: str = ""
    update_revision: str = ""
    collision_count: int | None = None


class StatefulSet(msgspec.Struct, frozen=True):
    """``apps/v1.StatefulSet``."""

    metadata: Meta = Meta()
    spec: StatefulSetSpec = StatefulSetSpec()
    status: StatefulSetStatus = StatefulSetStatus()
