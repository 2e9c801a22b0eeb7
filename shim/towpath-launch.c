/*
 * towpath-launch PROGRAM [ARGUMENT...]: run PROGRAM with CAP_NET_ADMIN and nothing else, for good.
 *
 * Kubernetes gives a container's capabilities to a process of another user than root only as its bounding set.
 * This file has cap_net_admin+ep, so executing it gives the one capability; what it executes keeps it as an
 * ambient one (capabilities(7)). Before that it sets no_new_privs, after which no file gives anything to
 * anybody any more, and a seccomp filter (seccomp(2)) that lets through what syscalls.h lists. All of this is
 * inherited, and cannot be undone.
 *
 * Exit code 7 and a sentence on stderr: a right is missing. The container needs capabilities.add NET_ADMIN and
 * allowPrivilegeEscalation: true, without which file capabilities do not count.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "which AUDIT_ARCH is this?"
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOAD_ARG(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[n])) /* lower half */
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, value)
#define EQUALS(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
#define REFUSE(error) RETURN(SECCOMP_RET_ERRNO | (error))
#define PASS RETURN(SECCOMP_RET_ALLOW)
#define ALLOW(name) EQUALS(__NR_##name, 0, 1), PASS,

#define NEW_NAMESPACES                                                                                            \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

/* What is refused fails with EPERM: an agent that is refused something says so, and goes on. */
static const struct sock_filter program[] = {
	LOAD(arch), EQUALS(ARCH, 1, 0), RETURN(SECCOMP_RET_KILL_PROCESS),
	LOAD(nr),
#ifdef __x86_64__
	BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000 /* __X32_SYSCALL_BIT */, 0, 1), REFUSE(ENOSYS),
#endif
#include "syscalls.h"
	/* Its flags are out of a filter's sight; C libraries fall back to clone. */
	EQUALS(__NR_clone3, 0, 1), REFUSE(ENOSYS),
	/* Threads, but no processes and no namespaces: an agent starts none (fork and vfork are not listed either). */
	EQUALS(__NR_clone, 0, 5), LOAD_ARG(0), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NEW_NAMESPACES, 1, 0),
	BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0), REFUSE(EPERM), PASS,
	/* Sockets of four families: no packets past the firewall, none of the kernel's odder protocols. */
	EQUALS(__NR_socket, 0, 6), LOAD_ARG(0), EQUALS(AF_UNIX, 3, 0), EQUALS(AF_INET, 2, 0), EQUALS(AF_INET6, 1, 0),
	EQUALS(AF_NETLINK, 0, 1), PASS,
	REFUSE(EPERM),
};

static int refuse(const char *what, const char *fix)
{
	fprintf(stderr, "towpath-launch: %s: %s (%s)\n", what, strerror(errno), fix);
	return 7;
}

static int keep_net_admin(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { 0 } };
	const uint32_t net_admin = 1u << CAP_NET_ADMIN;

	if (syscall(SYS_capget, &header, data) < 0)
		return -1;
	if (!(data[0].permitted & net_admin)) {
		errno = EPERM;
		return -1;
	}
	/* Works with CAP_SETPCAP only; where it does not, the container's bounding set is what was added to it. */
	for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
		if (capability != CAP_NET_ADMIN)
			prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
	memset(data, 0, sizeof(data));
	data[0].effective = data[0].permitted = data[0].inheritable = net_admin;
	if (syscall(SYS_capset, &header, data) < 0)
		return -1;
	return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0);
}

int main(int count, char **arguments)
{
	const struct sock_fprog filter = {
		.len = sizeof(program) / sizeof(program[0]), .filter = (struct sock_filter *)program,
	};

	if (count < 2) {
		fprintf(stderr, "usage: towpath-launch PROGRAM [ARGUMENT...]\n");
		return 2;
	}
	if (keep_net_admin() < 0)
		return refuse("CAP_NET_ADMIN", "the container needs capabilities.add [NET_ADMIN] and "
					       "allowPrivilegeEscalation: true, which is what lets file capabilities count");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return refuse("no_new_privs", "a kernel from 3.5 on");
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) < 0)
		return refuse("seccomp filter", "a kernel with CONFIG_SECCOMP_FILTER");
	execv(arguments[1], arguments + 1);
	return refuse(arguments[1], "the image is not complete");
}
