"""A rich valid object of each kind that the API server judges, for mutation."""

from typing import Any

Obj = dict[str, Any]
TIME = "2024-01-01T00:00:00Z"
SELECTOR: Obj = {"matchLabels": {"a": "b"}}
CONTAINER: Obj = {
    "name": "c",
    "image": "i",
    "ports": [{"containerPort": 80, "name": "http"}],
    "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    "volumeMounts": [{"name": "v", "mountPath": "/x"}],
    "resources": {"limits": {"cpu": "1"}},
    "livenessProbe": {"httpGet": {"port": 80}},
    "lifecycle": {"postStart": {"httpGet": {"port": 1}}},
}
PROJECTED: Obj = {
    "sources": [
        {"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
}
POD_SPEC: Obj = {
    "containers": [CONTAINER],
    "initContainers": [{"name": "i", "image": "x"}],
    "volumes": [{"name": "v", "projected": PROJECTED}, {"name": "w", "configMap": {"name": "x"}}],
    "tolerations": [{"key": "x"}],
}
TEMPLATE: Obj = {"metadata": {"labels": {"a": "b"}}, "spec": POD_SPEC}
ONCE: Obj = {**TEMPLATE, "spec": {**POD_SPEC, "restartPolicy": "Never"}}
POD_STATUS: Obj = {
    "phase": "Running",
    "podIP": "1.1.1.1",
    "conditions": [{"type": "Ready", "status": "True"}],
    "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1}}}],
    "containerStatuses": [
        {
            "name": "c",
            "ready": True,
            "restartCount": 1,
            "state": {"running": {"startedAt": TIME}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": TIME}},
        }
    ],
}
SERVICE: Obj = {
    "type": "NodePort",
    "ports": [{"port": 80, "name": "a", "nodePort": 30100}, {"port": 81, "name": "b", "targetPort": "x"}],
    "selector": {"a": "b"},
    "ipFamilyPolicy": "PreferDualStack",
    "ipFamilies": ["IPv6"],
    "clusterIP": "fd00:10:43::55",
    "clusterIPs": ["fd00:10:43::55"],
}
NODE_STATUS: Obj = {
    "capacity": {"cpu": "1"},
    "addresses": [{"type": "InternalIP", "address": "1.1.1.1"}],
    "conditions": [{"type": "Ready", "status": "True"}],
    "nodeInfo": {"kubeletVersion": "x"},
}
PEERS: list[Obj] = [
    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
    {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["x"]}]}},
]
BACKEND: Obj = {"service": {"name": "x", "port": {"number": 80}}}
SCHEMA: Obj = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "minimum": 1, "default": 5},
                "l": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["k"],
                    "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}},
                },
            },
        }
    },
}
CRD: Obj = {
    "group": "x.y",
    "scope": "Namespaced",
    "names": {"plural": "foos", "kind": "Foo", "shortNames": ["f"]},
    "versions": [
        {
            "name": "v1",
            "served": True,
            "storage": True,
            "schema": {"openAPIV3Schema": SCHEMA},
            "subresources": {
                "status": {},
                "scale": {"specReplicasPath": ".spec.a", "statusReplicasPath": ".status.a"},
            },
            "additionalPrinterColumns": [{"name": "A", "type": "integer", "jsonPath": ".spec.a"}],
        }
    ],
}
OWNER: Obj = {"apiVersion": "v1", "kind": "x", "name": "y", "uid": "z", "controller": True}
META: Obj = {"labels": {"a": "b"}, "ownerReferences": [OWNER], "annotations": {"x": "y"}}

SAMPLES: dict[str, Obj] = {
    "ConfigMap": {"data": {"a": "b"}, "binaryData": {"c": "aGk="}},
    "CronJob": {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": ONCE}}}},
    "CustomResourceDefinition": {"metadata": {"name": "foos.x.y"}, "spec": CRD},
    "DaemonSet": {
        "spec": {"selector": SELECTOR, "template": TEMPLATE, "updateStrategy": {"type": "OnDelete"}}
    },
    "Deployment": {
        "spec": {
            "selector": SELECTOR,
            "template": TEMPLATE,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}},
        }
    },
    "EndpointSlice": {
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["1.1.1.1"], "conditions": {"ready": True}}],
        "ports": [{"port": 80}],
    },
    "Endpoints": {"subsets": [{"addresses": [{"ip": "1.1.1.1"}], "ports": [{"port": 1}]}]},
    "Event": {
        "involvedObject": {"kind": "Pod", "name": "x", "namespace": "default"},
        "firstTimestamp": TIME,
        "series": {"count": 1},
    },
    "Ingress": {
        "spec": {
            "rules": [
                {"host": "x.y", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": BACKEND}]}}
            ],
            "tls": [{"hosts": ["a"]}],
        }
    },
    "Job": {"spec": {"template": ONCE}, "status": {"startTime": TIME, "succeeded": 1}},
    "Lease": {"spec": {"holderIdentity": "x", "renewTime": "2024-01-01T00:00:00.000000Z"}},
    "NetworkPolicy": {
        "spec": {
            "podSelector": SELECTOR,
            "ingress": [{"from": PEERS, "ports": [{"port": 80, "endPort": 90}]}],
            "policyTypes": ["Ingress"],
        }
    },
    "Node": {
        "spec": {"podCIDRs": ["10.0.0.0/24"], "taints": [{"key": "a", "effect": "NoSchedule"}]},
        "status": NODE_STATUS,
    },
    "PersistentVolume": {
        "spec": {
            "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/x"},
            "claimRef": {"name": "x"},
            "accessModes": ["ReadWriteOnce"],
        }
    },
    "PersistentVolumeClaim": {
        "spec": {
            "volumeName": "x",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        }
    },
    "Pod": {"metadata": META, "spec": POD_SPEC, "status": POD_STATUS},
    "PodDisruptionBudget": {"spec": {"minAvailable": "50%", "selector": SELECTOR}},
    "PriorityClass": {"value": 1},
    "ReplicaSet": {"spec": {"selector": SELECTOR, "template": TEMPLATE}},
    "RoleBinding": {
        "roleRef": {"kind": "Role", "name": "x", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "b"}],
    },
    "Secret": {"data": {"a": "aGk="}, "stringData": {"b": "c"}},
    "Service": {"spec": SERVICE, "status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}}},
    "StatefulSet": {
        "spec": {
            "selector": SELECTOR,
            "template": TEMPLATE,
            "serviceName": "x",
            "volumeClaimTemplates": [{"metadata": {"name": "a"}, "spec": {}}],
        }
    },
}
