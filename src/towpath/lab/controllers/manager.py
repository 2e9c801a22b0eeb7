"""All controllers of a cluster in one task group."""

import asyncio
import time

from towpath.kube.client import Client
from towpath.lab.controllers.controller import Context, Controller
from towpath.lab.controllers.daemonset import DaemonSetController
from towpath.lab.controllers.deployment import DeploymentController
from towpath.lab.controllers.endpoints import EndpointsController
from towpath.lab.controllers.events import EventRecorder
from towpath.lab.controllers.garbagecollector import GarbageCollector
from towpath.lab.controllers.informers import Informers
from towpath.lab.controllers.inventory import Inventory
from towpath.lab.controllers.namespaces import NamespaceController, NamespaceDefaultsController
from towpath.lab.controllers.nodeipam import NodeIpamController
from towpath.lab.controllers.nodelifecycle import NodeLifecycleController
from towpath.lab.controllers.replicaset import ReplicaSetController
from towpath.lab.controllers.scheduler import Scheduler
from towpath.lab.controllers.settings import Settings
from towpath.lab.controllers.statefulset import StatefulSetController


async def run(client: Client, settings: Settings) -> None:
    """Run every controller until cancelled. Failures of the API server are waited out, never raised."""
    async with asyncio.TaskGroup() as group:
        recorder = EventRecorder(client, time.time)
        context = Context(client, Informers(client, group), recorder.record, settings, time.time)
        inventory = Inventory(context)
        controllers: list[Controller] = [
            NodeIpamController(context),
            NodeLifecycleController(context),
            Scheduler(context),
            DeploymentController(context),
            ReplicaSetController(context),
            DaemonSetController(context),
            StatefulSetController(context),
            EndpointsController(context),
            NamespaceDefaultsController(context),
            NamespaceController(context, inventory),
            GarbageCollector(context, inventory),
        ]
        group.create_task(recorder.run(), name="events")
        for controller in controllers:
            group.create_task(controller.run(), name=controller.name)
