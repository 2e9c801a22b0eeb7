/*
 * What the shim needs of a C library, without one: the start, system calls, memory.
 *
 * Built freestanding (shim/build.sh does so on x86-64) its start and end cost 0.15 ms, with glibc 0.64 ms:
 * glibc's start executes CPUID 68 times, mostly to size the caches, and in a virtual machine each of these
 * instructions is a trap into the hypervisor, 7 microseconds here. Every ADD, DEL and STATUS would pay for it.
 * Without FREESTANDING the same code is a hosted program for any 64-bit Linux.
 *
 * Calls return what the kernel returns: a negative errno for failure. There is no errno.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/stat.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

_Static_assert(sizeof(long) == 8 && sizeof(time_t) == 8, "a 64-bit system");

static char **environment;
static int shim(void);

#ifdef FREESTANDING
#ifndef __x86_64__
#error "FREESTANDING is for x86-64; leave it out"
#endif

static long sys6(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

/* The compiler calls these for what it finds too long to write out. */
void *memcpy(void *restrict to, const void *restrict from, size_t length)
{
	void *at = to;

	__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(length) : : "memory");
	return to;
}

void *memset(void *to, int value, size_t length)
{
	void *at = to;

	__asm__ volatile("rep stosb" : "+D"(at), "+c"(length) : "a"(value) : "memory");
	return to;
}

size_t strlen(const char *text)
{
	size_t length = 0;

	while (text[length]) {
		length++;
		__asm__ volatile(""); /* or the compiler sees that this is strlen, and calls it */
	}
	return length;
}

int memcmp(const void *a, const void *b, size_t length)
{
	const unsigned char *x = a, *y = b;

	for (size_t i = 0; i < length; i++)
		if (x[i] != y[i])
			return x[i] - y[i];
	return 0;
}

__asm__(".globl _start\n"
	"_start:\n"
	"	xor %ebp, %ebp\n"
	"	mov %rsp, %rdi\n"
	"	and $-16, %rsp\n"
	"	call begin\n");

/* The kernel leaves argc, the arguments, a null pointer and the environment on the stack. */
__attribute__((noreturn, used)) static void begin(long *stack)
{
	environment = (char **)(stack + stack[0] + 2);
	sys6(SYS_exit_group, shim(), 0, 0, 0, 0, 0);
	__builtin_unreachable();
}

#else
#include <unistd.h>

static long sys6(long number, long a, long b, long c, long d, long e, long f)
{
	long result = syscall(number, a, b, c, d, e, f);

	return result < 0 ? -errno : result;
}

int main(int count, char **arguments, char **variables)
{
	(void)count;
	(void)arguments;
	environment = variables;
	return shim();
}
#endif

static int sys_open(const char *path, int flags)
{
	return (int)sys6(SYS_openat, AT_FDCWD, (long)path, flags | O_CLOEXEC, 0, 0, 0);
}

static void sys_close(int fd)
{
	sys6(SYS_close, fd, 0, 0, 0, 0, 0);
}

static long sys_read(int fd, void *to, size_t length)
{
	return sys6(SYS_read, fd, (long)to, (long)length, 0, 0, 0);
}

static long sys_write(int fd, const void *from, size_t length)
{
	return sys6(SYS_write, fd, (long)from, (long)length, 0, 0, 0);
}

static long sys_readlink(const char *path, char *to, size_t length)
{
	return sys6(SYS_readlinkat, AT_FDCWD, (long)path, (long)to, (long)length, 0, 0);
}

static int sys_fcntl(int fd, int command, long argument)
{
	return (int)sys6(SYS_fcntl, fd, command, argument, 0, 0, 0);
}

static int sys_pipe(int ends[2])
{
	return (int)sys6(SYS_pipe2, (long)ends, O_CLOEXEC, 0, 0, 0, 0);
}

static int sys_statx(int fd, struct statx *to)
{
	return (int)sys6(SYS_statx, fd, (long)"", AT_EMPTY_PATH, STATX_INO, (long)to, 0);
}

static int sys_setns(int fd)
{
	return (int)sys6(SYS_setns, fd, CLONE_NEWNET, 0, 0, 0, 0);
}

static int sys_socket(int family, int type, int protocol)
{
	return (int)sys6(SYS_socket, family, type | SOCK_CLOEXEC, protocol, 0, 0, 0);
}

static int sys_connect(int fd, const struct sockaddr_un *to)
{
	return (int)sys6(SYS_connect, fd, (long)to, sizeof(*to), 0, 0, 0);
}

static long sys_sendmsg(int fd, const struct msghdr *message)
{
	return sys6(SYS_sendmsg, fd, (long)message, MSG_NOSIGNAL, 0, 0, 0);
}

static bool sys_getrandom(void *to, size_t length)
{
	return sys6(SYS_getrandom, (long)to, (long)length, 0, 0, 0, 0) == (long)length;
}

/* Wait for events, or only for time to pass; at most so many milliseconds, for ever if negative. */
static long sys_poll(struct pollfd *fds, size_t count, int64_t ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	return sys6(SYS_ppoll, (long)fds, (long)count, ms < 0 ? 0 : (long)&t, 0, 0, 0);
}

static int64_t now_ms(void)
{
	struct timespec t;

	sys6(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&t, 0, 0, 0, 0);
	return t.tv_sec * (int64_t)1000 + t.tv_nsec / 1000000;
}

/* Replace the mask of blocked signals by 1 << (signal - 1) | ...; returns what it was. */
static uint64_t sys_block(uint64_t signals)
{
	uint64_t before = 0;

	sys6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&signals, (long)&before, sizeof(signals), 0, 0);
	return before;
}

static int sys_fork(void)
{
	return (int)sys6(SYS_clone, SIGCHLD, 0, 0, 0, 0, 0);
}

static long sys_execve(const char *path, char *const *arguments, char *const *variables)
{
	return sys6(SYS_execve, (long)path, (long)arguments, (long)variables, 0, 0, 0);
}

static void sys_dup(int fd, int to)
{
	sys6(SYS_dup3, fd, to, 0, 0, 0, 0);
}

/* Lead a process group, to be killed as one; and die with the parent, which a runtime kills at its deadline. */
static void sys_own_group(void)
{
	sys6(SYS_setpgid, 0, 0, 0, 0, 0, 0);
	sys6(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0);
}

static void sys_kill(int pid, int signal)
{
	sys6(SYS_kill, pid, signal, 0, 0, 0, 0);
}

static int sys_wait(int pid)
{
	int status = 0;

	while (sys6(SYS_wait4, pid, (long)&status, 0, 0, 0, 0) == -EINTR)
		;
	return status;
}

__attribute__((noreturn)) static void sys_exit(int status)
{
	sys6(SYS_exit_group, status, 0, 0, 0, 0, 0);
	__builtin_unreachable();
}

static const char *error_text(long error)
{
	static const struct {
		int error;
		const char *text;
	} known[] = {
		{ EACCES, "Permission denied" },
		{ EAGAIN, "it takes no more connections" },
		{ ECONNREFUSED, "Connection refused" },
		{ ECONNRESET, "Connection reset by peer" },
		{ EINVAL, "Invalid argument" },
		{ EIO, "Input/output error" },
		{ ELOOP, "Too many levels of symbolic links" },
		{ EMFILE, "Too many open files" },
		{ ENOENT, "No such file or directory" },
		{ ENOEXEC, "Exec format error" },
		{ ENOMEM, "Cannot allocate memory" },
		{ ENOTDIR, "Not a directory" },
		{ ENOTSOCK, "Socket operation on non-socket" },
		{ EPERM, "Operation not permitted" },
		{ EPIPE, "Broken pipe" },
		{ ETIMEDOUT, "Timed out" },
		{ ETXTBSY, "Text file busy" },
	};
	static char number[] = "error ???";

	error = error < 0 ? -error : error;
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (known[i].error == error)
			return known[i].text;
	for (int i = 8; i > 5; i--, error /= 10)
		number[i] = (char)('0' + error % 10);
	return number;
}
