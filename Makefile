# Two commands do everything on a fresh Debian 12: `make demo` and `make test`.
PY := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help demo test lint docs clean bootstrap bootstrap-test bootstrap-image bootstrap-e2e e2e image image-refresh image-takeover chart bench-article bench-cni bench-fabric bench-image bench-ipam bench-lab bench-multinet bench-policy bench-kube bench-restart bench-upgrade bench-stories record-seccomp soak-chaos soak-ipam

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

bootstrap:
	@scripts/bootstrap demo

bootstrap-test:
	@scripts/bootstrap test

bootstrap-image:
	@scripts/bootstrap image

bootstrap-e2e:
	@scripts/bootstrap e2e

demo: bootstrap ## a three-node dual-stack cluster on this machine: pods, traffic, verification
	@demo/run

test: bootstrap-test lint ## everything that must hold: linters, types, layers, unit, kernel, lab and client tests
	@$(PY) -m pytest -n auto tests/unit tests/golden
	@$(PY) -m pytest -n 2 --dist worksteal tests/kernel tests/clients # they wait more than they compute
	@$(PY) -m pytest tests/lab

e2e: bootstrap-e2e ## Towpath under real Kubernetes (built from Debian's source the first time, or TOWPATH_KUBE_BIN)
	@$(PY) -m towpath.lab.real
	@$(PY) -m pytest tests/e2e
	@$(PY) -m pytest -s tests/lab/test_lab_upgrade_towpath.py
	@$(PY) -m pytest --confcutdir=tests/e2e/image tests/e2e/image
	@$(PY) -m towpath.lab.real.images
	@$(PY) -m bench.restart_versions
	@$(PY) -m towpath.lab.real.world $(PY) -m pytest --confcutdir=tests/e2e/nodes tests/e2e/nodes

image: bootstrap-image ## the agent's image from locked Debian packages, in build/image; last line: its digest
	@$(PY) -m towpath.image.build $(if $(ARCH),--architecture $(ARCH))

image-takeover: bootstrap-image ## the image of a migration's Jobs, with iptables and ipset, in build/takeover-image
	@$(PY) -m towpath.image.build --takeover $(if $(ARCH),--architecture $(ARCH))

image-refresh: bootstrap-image ## move image/*lock.json to the latest patches, and say what changed
	@$(PY) -m towpath.image.build --refresh

record-seccomp: bootstrap-test ## what agents ask of the kernel while suites run, as root; the filter of it (SUITES="tests/lab")
	@$(PY) -m towpath.image.recording $(PY) -m pytest -q $(or $(SUITES),-n 2 --dist worksteal tests/kernel)
	@$(if $(SUITES),:,$(PY) -m towpath.image.recording $(PY) -m pytest -q tests/lab)

chart: bootstrap-test ## the Helm chart from the manifests, tried with real Helm (the library on PyPI, 47 MB)
	@$(PY) -m towpath.install.chart charts/towpath
	@uv=$$(command -v uv || echo .venv-uv/bin/uv); UV_SYSTEM_CERTS=1 $$uv pip install -q --target build/helm \
	    --python-version 3.13 --no-deps --only-binary :all: --require-hashes -r charts/helm.txt
	@$(PY) -m pytest --confcutdir=tests/e2e/chart tests/e2e/chart

lint: bootstrap-test ## ruff, mypy --strict, import-linter
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@for f in $$(find tests -mindepth 2 -name conftest.py); do .venv/bin/mypy $$f || exit 1; done
	@.venv/bin/lint-imports

bench-cni: bootstrap-test ## ADD and DEL against Debian's plugin chain
	@$(PY) -m bench.cni

bench-image: bootstrap-image ## the image's size and build, and what an agent started from it costs with 100 pods
	@$(PY) -m bench.image

bench-fabric: bootstrap-test ## throughput across nodes against a hand-made flannel.1
	@$(PY) -m bench.fabric

bench-restart: bootstrap-test ## what pods notice of restarts, crashes, version changes and damage; report in build/ (ONLY=restart,link ROUNDS=3)
	@$(PY) -m bench.restart $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS))

bench-upgrade: bootstrap-test ## a conducted upgrade of ten nodes under probes; preflight and twin of large clusters (ONLY=twin)
	@$(PY) -m bench.upgrade $(if $(ONLY),--only $(ONLY))

bench-stories: bootstrap-test ## failure stories staged in a lab with Canal: caught by what, after how long (ONLY=preflight)
	@$(PY) -m bench.stories $(ONLY)

bench-article: bootstrap-test ## rke2-canal v1.32.1 → v1.32.2, then Canal → Towpath → Canal, conducted in a lab: what each loses
	@$(PY) -m bench.article

bench-lab: bootstrap-test ## time to a Ready lab, agent's memory
	@$(PY) -m bench.lab

bench-multinet: bootstrap-test ## ADD with extra networks against Debian's plugins in sequence; 64 pods at once
	@$(PY) -m bench.multinet

bench-policy: bootstrap-test ## connections, start, changes and matrix with thousands of policies
	@$(PY) -m bench.policy

bench-ipam: bootstrap-test ## leases on the disk against Debian's host-local, with 200 and 4 000 in use
	@$(PY) -m bench.ipam

soak-ipam: bootstrap-test ## a million leases and releases by processes that are killed meanwhile (OPS=1000000 SEED=random)
	@$(PY) -m bench.soak_blocks --examples $(or $(EXAMPLES),5000)
	@$(PY) -m bench.soak_ipam --ops $(or $(OPS),1000000) $(if $(SEED),--seed $(SEED))

soak-chaos: bootstrap-test ## an hour of accidents in the lab: what is left of the cluster (MINUTES=60 SEED=random)
	@$(PY) -m bench.soak_chaos --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED))

bench-kube: bootstrap-e2e ## 30 pods on a node of real Kubernetes against Debian's bridge, host-local and portmap
	@$(PY) -m towpath.lab.real >&2
	@$(PY) -m towpath.lab.real.images >&2
	@$(PY) -m towpath.lab.real.world $(PY) -m bench.kube

docs: bootstrap ## man page and reference of the command line, from the program itself
	@$(PY) -m docs.generate

clean: ## remove what the other targets made in this folder
	@rm -rf .venv .venv-uv dist build src/towpath/bin .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
