"""Codes TP8nnn: images, their build and audit."""

from towpath.model.code import Code

IMAGE: dict[str, Code] = {
    "TP8001": Code(
        title="An image cannot be built, or not be read",
        cause="A tool, an input or the image itself is missing or damaged; the message names it.",
        fix="Correct what the message names. Nothing was written outside the work folder.",
    ),
    "TP8002": Code(
        title="A package is not the one that was locked",
        cause="Its SHA-256 is not the lock's: the lock was edited, or the mirror delivers something else.",
        fix="Find out which of the two changed, and why, before `make image-refresh` accepts the new one.",
    ),
    "TP8003": Code(
        title="A locked package is no longer on the mirror",
        cause="Debian keeps only the newest version of a package; a patch has replaced the locked one.",
        fix="Take the patch with `make image-refresh`, or name a snapshot in TOWPATH_DEBIAN_MIRROR.",
    ),
    "TP8010": Code(
        title="An image is truncated or damaged",
        cause="A layer, archive or document ends too early, or is not what its place says.",
        fix="Copy the image again; if it stays so, its builder made it so.",
    ),
    "TP8011": Code(
        title="A part of an image has another digest than it should",
        cause="It was damaged or changed on its way.",
        fix="Do not run it. Copy it again from a place you trust.",
    ),
    "TP8012": Code(
        title="A part of an image is missing",
        cause="The copy is incomplete.",
        fix="Copy the image again, with all its blobs.",
    ),
    "TP8013": Code(
        title="A part of an image has a type that cannot be judged",
        cause="It is no container image, or uses a compression or digest that is not known here.",
        fix="Convert it with skopeo copy to an OCI layout with tar layers.",
    ),
    "TP8014": Code(
        title="A layer reaches outside the image",
        cause=(
            "A path with .., a loop of links, or a link by which a careless unpacker would write elsewhere."
        ),
        fix="Do not run it, and ask who built it. Nothing was written.",
    ),
    "TP8015": Code(
        title="An image is larger than allowed",
        cause=(
            "It unpacks to more bytes or entries than the limit: a decompression bomb, or a very large image."
        ),
        fix="If it is meant to be so large, raise --max-unpacked.",
    ),
    "TP8016": Code(
        title="It is not clear which image is meant",
        cause="There are several, for several platforms, or none.",
        fix="Choose with --platform, or copy one image only.",
    ),
    "TP8101": Code(
        title="The image runs as root",
        cause="No user is set, or it is uid 0.",
        fix="Set a numeric user in the image's configuration.",
    ),
    "TP8102": Code(
        title="The image's user is a name",
        cause="A kubelet cannot tell whether a name is root, and refuses runAsNonRoot.",
        fix="Set the number instead.",
    ),
    "TP8103": Code(
        title="The base image is not known or not pinned",
        cause="No label names its digest, so a rebuild may start from something else.",
        fix="Build from a digest and set org.opencontainers.image.base.name and .base.digest.",
    ),
    "TP8104": Code(
        title="There is no health check",
        cause="Nothing in the image says how to see whether it works. Kubernetes ignores it and uses probes.",
        fix="Define probes in the pod, and say so in the image's documentation.",
    ),
    "TP8105": Code(
        title="A build step is not repeatable or not safe",
        cause="It upgrades to whatever is newest, or fetches without a hash or encryption.",
        fix="Pin versions and hashes; update and install in one step.",
    ),
    "TP8106": Code(
        title="The configuration holds what looks like a secret",
        cause="Environment, labels and history can be read by everybody who can pull the image.",
        fix="Revoke it, and give it at run time (a Secret, a build secret).",
    ),
    "TP8107": Code(
        title="A label is missing",
        cause="Without it nobody can tell where the image came from.",
        fix="Set the labels of the OCI specification when building.",
    ),
    "TP8108": Code(
        title="The image is old, or its age is unknown",
        cause="Patches have appeared since it was built.",
        fix="Rebuild it with the latest packages.",
    ),
    "TP8109": Code(
        title="There is no provenance",
        cause="No attestation in the index says who built it from what. A registry may have it elsewhere.",
        fix="Build with provenance (SLSA), or keep the build's log with the digest.",
    ),
    "TP8110": Code(
        title="There is no signature",
        cause="None lies beside the image. A registry may have it elsewhere.",
        fix="Sign the digest, and verify at admission.",
    ),
    "TP8111": Code(
        title="The image is named latest",
        cause="The tag says which image was built last, not which one this is.",
        fix="Give it a version of its own, and deploy it by digest.",
    ),
    "TP8120": Code(
        title="There is a shell",
        cause="It helps an intruder more than an operator.",
        fix="Leave it out; debug with an ephemeral container.",
    ),
    "TP8121": Code(
        title="There is a package manager",
        cause="It lets an intruder install tools, and the image change.",
        fix="Leave it out; keep only its database.",
    ),
    "TP8122": Code(
        title="There is a compiler, debugger or build tool",
        cause="It is not needed to run.",
        fix="Build in another stage.",
    ),
    "TP8123": Code(
        title="There are caches, logs or test files",
        cause="They cost size, and may tell about the builder.",
        fix="Remove them in the step that made them.",
    ),
    "TP8124": Code(
        title="A program is setuid or setgid",
        cause="Whoever executes it gets its owner's rights.",
        fix="Clear the bits, or leave the program out.",
    ),
    "TP8125": Code(
        title="A program has file capabilities",
        cause="Whoever executes it gets them, within the container's bounding set.",
        fix="Remove them, or justify the program by name.",
    ),
    "TP8126": Code(
        title="Anybody can write a file or folder",
        cause="A process of another user can change what this one reads.",
        fix="Take the right from others, or set the sticky bit.",
    ),
    "TP8127": Code(
        title="A file belongs to nobody",
        cause="Its uid or gid is not in passwd or group; whoever gets that number owns it.",
        fix="Give it to a user of the image, or add one.",
    ),
    "TP8128": Code(
        title="A file belongs to no package",
        cause="Nobody is answerable for it: it was copied in, generated or planted.",
        fix="List it, with its hash, in the image's SBOM; or leave it out.",
    ),
    "TP8129": Code(
        title="A package's file was changed",
        cause="It is not what its package delivered.",
        fix="Find out what changed it; rebuild from the package.",
    ),
    "TP8130": Code(
        title="A file holds what looks like a secret",
        cause="Everybody who can pull the image can read it, from lower layers as well.",
        fix="Revoke it, and rebuild without; deleting it in a later layer is not enough.",
    ),
    "TP8131": Code(
        title="A user has an empty password, or shares a uid",
        cause="Two names of one number hide who did what; an empty password is none.",
        fix="Lock the password, give each user a number of its own.",
    ),
    "TP8132": Code(
        title="There is a device or a named pipe",
        cause="Images have no use for them, and runtimes make their own.",
        fix="Leave it out.",
    ),
    "TP8140": Code(
        title="A program is loaded at a fixed address",
        cause="It was linked without -pie: addresses are known to an attacker.",
        fix="Build it with -fPIE -pie.",
    ),
    "TP8141": Code(
        title="A program's relocations stay writable",
        cause="It was linked without -z relro -z now.",
        fix="Link with -Wl,-z,relro,-z,now.",
    ),
    "TP8142": Code(
        title="A program's stack can be executed",
        cause="It was linked with an executable stack, or does not say.",
        fix="Link with -Wl,-z,noexecstack.",
    ),
    "TP8143": Code(
        title="A program has no stack protector",
        cause="It was compiled without -fstack-protector-strong (programs in Go and Rust have none of need).",
        fix="Compile with -fstack-protector-strong.",
    ),
    "TP8144": Code(
        title="A program looks for libraries in an unusual place",
        cause="Whoever can write there decides what it runs.",
        fix="Link without RPATH, or with $ORIGIN.",
    ),
    "TP8145": Code(
        title="A program's library or loader is missing",
        cause="It will not start.",
        fix="Add the package that has it, or leave the program out.",
    ),
    "TP8146": Code(
        title="A program is for another architecture",
        cause="The image says it is for one and holds programs of another.",
        fix="Copy the right build.",
    ),
    "TP8147": Code(
        title="A program cannot be read",
        cause="Its headers are damaged or of a kind unknown here.",
        fix="Rebuild it; look at it before running it.",
    ),
    "TP8150": Code(
        title="The image has a cryptographic module",
        cause="For FIPS 140 it matters which one, and whether it is validated and in its approved mode.",
        fix="Compare with the certificate you rely on.",
    ),
    "TP8151": Code(
        title="A program brings cryptography that is not validated",
        cause="It is Go without BoringCrypto or the Go module's FIPS mode.",
        fix="If you need FIPS 140, build it with a validated module.",
    ),
    "TP8152": Code(
        title="Algorithms that FIPS forbids are at hand",
        cause="OpenSSL's legacy provider lies where a configuration or a program can load it.",
        fix="Leave ossl-modules/legacy.so out of the image if nothing needs MD4, RC4 or DES.",
    ),
    "TP8160": Code(
        title="Runtime data is missing",
        cause=(
            "Minimal images lose files that programs read without saying so; networks have broken for "
            "/etc/protocols."
        ),
        fix="Add the file, or the package that has it (netbase, ca-certificates, base-files).",
    ),
    "TP8170": Code(
        title="There is no bill of materials",
        cause="Nobody can tell what the image is made of without taking it apart.",
        fix="Make an SBOM when building, and keep it in the image or beside it.",
    ),
    "TP8171": Code(
        title="The bill of materials does not match the image",
        cause="Something is listed that is not there, or is there and not listed.",
        fix="Make it from what is built, as the last step.",
    ),
    "TP8172": Code(
        title="The bill of materials is not valid",
        cause="It does not keep to its own format.",
        fix="Make it with a kept library, and validate it.",
    ),
    "TP8180": Code(
        title="There is no package database that can be read",
        cause="Scanners find no vulnerabilities where they find no packages.",
        fix="Keep the database when removing the package manager.",
    ),
    "TP8181": Code(
        title="A known vulnerability has a fix that is not in the image",
        cause="The feed names the version that has it.",
        fix="Rebuild with that version; say in a VEX document if it is of no effect here.",
    ),
    "TP8182": Code(
        title="A known vulnerability has no fix yet",
        cause="The feed knows of none.",
        fix="Judge whether it can be reached here, and say so in a VEX document.",
    ),
    "TP8190": Code(
        title="A file is hidden by a later layer",
        cause="It is gone for the container, and still in the image for everybody.",
        fix="Do not add it in the first place; build in another stage.",
    ),
    "TP8191": Code(
        title="Times differ from build to build",
        cause="Files are younger than the image says it is.",
        fix="Set all times to SOURCE_DATE_EPOCH.",
    ),
    "TP8192": Code(
        title="The image is over its budget",
        cause="Size, entries or layers are more than was allowed.",
        fix="Leave out what is not needed, or raise the budget.",
    ),
    "TP8201": Code(
        title="A container is privileged",
        cause="It has every capability and device of the node.",
        fix="Give it the capabilities it needs.",
    ),
    "TP8202": Code(
        title="A container adds capabilities",
        cause="More than Pod Security's restricted level allows (NET_BIND_SERVICE).",
        fix="Add only what is justified, by name, in the component's documentation.",
    ),
    "TP8203": Code(
        title="A container keeps the runtime's default capabilities",
        cause="It does not drop ALL.",
        fix="Set capabilities.drop: [ALL] and add back what is needed.",
    ),
    "TP8204": Code(
        title="A container's process may gain rights",
        cause="allowPrivilegeEscalation is not false: setuid and file capabilities count.",
        fix="Set it to false; where a file capability is needed on purpose, say so.",
    ),
    "TP8205": Code(
        title="A container runs as root, or may",
        cause="The user is 0, or nothing keeps it from being so.",
        fix="Set runAsNonRoot: true and a numeric runAsUser.",
    ),
    "TP8206": Code(
        title="A container can write its own image",
        cause="readOnlyRootFilesystem is not true.",
        fix="Set it, and mount an emptyDir where it must write.",
    ),
    "TP8207": Code(
        title="A container has no seccomp profile",
        cause="Every system call of the kernel is open to it.",
        fix="Set seccompProfile.type: RuntimeDefault, or a Localhost profile.",
    ),
    "TP8208": Code(
        title="A pod mounts a folder of the node",
        cause="What is written there stays, and may be run by others.",
        fix="Mount as little as possible, read-only where it can be.",
    ),
    "TP8209": Code(
        title="A pod shares a namespace or port of the node",
        cause="It sees, and may disturb, what belongs to the node.",
        fix="Do without, or justify it by name.",
    ),
    "TP8210": Code(
        title="A container has no limits",
        cause="It may use all memory or processors of the node.",
        fix="Set resources.limits, or say why none (an agent that must not be throttled).",
    ),
    "TP8211": Code(
        title="A pod has a token it may not need",
        cause="The default service account's token is mounted.",
        fix="Set automountServiceAccountToken: false, or name the account it needs.",
    ),
    "TP8212": Code(
        title="A container's image is named by a tag",
        cause="The same name may be another image tomorrow.",
        fix="Pin the digest: name@sha256:…",
    ),
    "TP8213": Code(
        title="A container pins another image than the audited one",
        cause="The digests differ.",
        fix="Audit the image that runs, or pin the one that was audited.",
    ),
    "TP8214": Code(
        title="A container is freed from AppArmor, SELinux or a masked /proc",
        cause="Its security context says Unconfined, Unmasked, or another type than a container's.",
        fix="Take that out; where the node's files are wanted, say in a policy which type and why.",
    ),
}
