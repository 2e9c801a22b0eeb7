/*
 * towpath-cni: the CNI executable. It carries a call of the container runtime to the Towpath agent, and the
 * answer back. It parses no JSON and configures nothing.
 *
 * What only root in the host's namespaces can do is done here, and handed over as descriptors:
 * the pod's network namespace, a route netlink socket inside it, and the folders of its network sysctls.
 * With them the agent wires the pod with NET_ADMIN alone (docs/adr/0003-c-shim.md).
 *
 * Wire format, little endian, on a Unix stream socket (Python's end is src/towpath/cni/wire.py):
 *   request   "TWP1" u32 length, body = NUL-terminated KEY=VALUE strings, an empty string, the raw stdin;
 *             SCM_RIGHTS with the first byte: netns, netlink socket, /proc/sys/net/ipv4, /proc/sys/net/ipv6
 *   reply     'R' u32 exit code, u32 length, what to print on stdout
 *             'E' u32 length, path NUL, KEY=VALUE NUL ..., NUL, stdin: execute a delegate, answer with
 *   executed  'X' u32 status, u32 length, its stdout, u32 length, its stderr
 *
 * One request may be sent several times, to one agent after another; TOWPATH_REQUEST stays the same.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/netlink.h>

#define DEFAULT_SOCKET "/run/towpath/cni.sock"
#define SOCKET_FILE "towpath-cni.socket" /* beside the executable: one line, another socket's path */
#define OWN_VERSION "1.1.0"
#ifndef PATIENCE_MS
#define PATIENCE_MS 60000 /* with which ADD, DEL and GC wait for an agent that is down */
#endif
#define VERSION_LIST "\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\""

enum { MAX_STDIN = 1 << 20, MAX_ENV = 1 << 18, MAX_REPLY = 4 << 20, MAX_STDOUT = 1 << 20, MAX_STDERR = 1 << 16 };
enum { BAD_ENVIRONMENT = 4, IO_FAILURE = 5, UNDECODABLE = 6, TRY_LATER = 11, UNAVAILABLE = 50, INTERNAL = 999 };
enum { NETNS, NETLINK, SYSCTL4, SYSCTL6, DESCRIPTORS };
enum { CONTAINERID = 1, PODNS = 2, IFNAME = 4 };
enum outcome { ANSWERED, DROPPED, GARBLED };

/*
 * How long a command waits for the agent, and which error it ends with. A restart of the agent must not fail
 * a pod, hence ADD and DEL wait long. A runtime asks for STATUS every few seconds and believes the node's
 * network dead while it hangs. CHECK changes nothing and can simply be asked again. Seldom is GC: it may wait,
 * and the agent may have much to do.
 */
static const struct command {
	const char *name;
	int required, descriptors;
	int64_t patience_ms;
	int code;
} commands[] = {
	{ "ADD", CONTAINERID | PODNS | IFNAME, 1, PATIENCE_MS, TRY_LATER },
	{ "DEL", CONTAINERID | IFNAME, 1, PATIENCE_MS, TRY_LATER },
	{ "CHECK", CONTAINERID | PODNS | IFNAME, 1, PATIENCE_MS / 6, TRY_LATER },
	{ "GC", 0, 0, PATIENCE_MS, TRY_LATER },
	{ "STATUS", 0, 0, 800, UNAVAILABLE },
};

struct buffer {
	char *data;
	size_t length, room, limit;
};

static const char *cni_version = OWN_VERSION; /* of this call, for the errors printed here */
static struct buffer input = { .limit = MAX_STDIN };
static int64_t deadline;
static char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)] = DEFAULT_SOCKET;

static void fail(int code, const char *details, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * (int64_t)1000 + t.tv_nsec / 1000000;
}

static int64_t remaining_ms(void)
{
	int64_t left = deadline - now_ms();

	return left > 0 ? left : 0;
}

static bool write_all(int fd, const char *data, size_t length)
{
	while (length > 0) {
		ssize_t n = write(fd, data, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		data += n;
		length -= (size_t)n;
	}
	return true;
}

/* Room for more bytes, or NULL beyond the buffer's limit. */
static char *buffer_room(struct buffer *b, size_t more)
{
	if (more > b->limit - b->length)
		return NULL;
	if (b->length + more > b->room) {
		size_t room = b->room ? b->room : 4096;
		char *data;

		while (room < b->length + more)
			room *= 2;
		data = realloc(b->data, room);
		if (!data)
			return NULL;
		b->data = data;
		b->room = room;
	}
	return b->data + b->length;
}

static bool buffer_add(struct buffer *b, const void *data, size_t length)
{
	char *at = buffer_room(b, length);

	if (!at)
		return false;
	memcpy(at, data, length);
	b->length += length;
	return true;
}

static bool buffer_u32(struct buffer *b, size_t value)
{
	unsigned char le[4] = { value & 255, value >> 8 & 255, value >> 16 & 255, value >> 24 & 255 };

	return buffer_add(b, le, 4);
}

static uint32_t u32(const unsigned char *le)
{
	return le[0] | (uint32_t)le[1] << 8 | (uint32_t)le[2] << 16 | (uint32_t)le[3] << 24;
}

/* Inside of a JSON string; bytes that are not plain ASCII become '?', as nothing says they are UTF-8. */
static void json_text(FILE *out, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			fputc('\\', out);
		fputc(c < 32 || c > 126 ? '?' : c, out);
	}
}

/* Print a CNI error and leave. */
static void fail(int code, const char *details, const char *format, ...)
{
	char message[4096];
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	printf("{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"", cni_version, code);
	json_text(stdout, message);
	printf("\",\"details\":\"");
	json_text(stdout, details);
	printf("\"}\n");
	fflush(stdout);
	_exit(1);
}

/*
 * The version the caller speaks, if it is one we speak. Not parsing: a look for the first "cniVersion": "x.y.z".
 * It only decides what our own few answers call themselves.
 */
static void find_version(void)
{
	static const char key[] = "\"cniVersion\"";
	static const char list[] = VERSION_LIST;
	size_t i, at, end;

	for (i = 0; i + sizeof(key) < input.length; i++) {
		if (strncasecmp(input.data + i, key, sizeof(key) - 1) != 0)
			continue;
		at = i + sizeof(key) - 1;
		while (at < input.length && strchr(" \t\r\n:", input.data[at]) && input.data[at])
			at++;
		for (end = at + 1; end < input.length && input.data[end] != '"' && end - at < 16; end++)
			;
		if (end < input.length && end - at > 5 && input.data[at] == '"') {
			char *quoted = strndup(input.data + at, end - at + 1);
			const char *known = quoted ? strstr(list, quoted) : NULL;

			if (known)
				cni_version = strndup(known + 1, end - at - 1);
			free(quoted);
		}
		return;
	}
}

/* Read stdin to its end, or fail; with patience < 0 a silent or open-ended stdin is no error. */
static void read_stdin(int64_t patience)
{
	int64_t until = now_ms() + (patience < 0 ? -patience : patience);

	for (;;) {
		struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
		int64_t left = until - now_ms();
		int ready = poll(&p, 1, left > 0 ? (int)left : 0);
		char *at = buffer_room(&input, 16384);
		ssize_t n;

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready == 0 && patience < 0)
			return;
		if (ready == 0)
			fail(IO_FAILURE, "", "standard input did not end within %lld s", (long long)patience / 1000);
		if (!at)
			fail(UNDECODABLE, "", "the network configuration is larger than %d bytes", MAX_STDIN - 16384);
		n = read(STDIN_FILENO, at, 16384);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0 && patience >= 0)
			fail(IO_FAILURE, strerror(errno), "cannot read the network configuration from stdin");
		if (n <= 0)
			return;
		input.length += (size_t)n;
	}
}

static void answer_version(void)
{
	if (!isatty(STDIN_FILENO))
		read_stdin(-200);
	find_version();
	printf("{\"cniVersion\":\"%s\",\"supportedVersions\":[%s]}\n", cni_version, VERSION_LIST);
	exit(fflush(stdout) == 0 ? 0 : 1);
}

/* An agent's socket other than the default is named in a file beside the executable. */
static void find_socket(void)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - sizeof(SOCKET_FILE));
	char *slash;
	int fd;

	if (n <= 0)
		return;
	path[n] = 0;
	slash = strrchr(path, '/');
	if (!slash)
		return;
	memcpy(slash + 1, SOCKET_FILE, sizeof(SOCKET_FILE));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, path, sizeof(path) - 1);
	close(fd);
	path[n > 0 ? n : 0] = 0;
	path[strcspn(path, "\r\n")] = 0;
	if (path[0] != '/' || strlen(path) >= sizeof(socket_path))
		fail(IO_FAILURE, path, "%s does not hold the path of a socket", SOCKET_FILE);
	strcpy(socket_path, path);
}

/*
 * Fill fds with what the agent needs of the pod's namespace. Returns how many there are, 0 with the reason in
 * error. Two sysctl folders, not /proc/sys/net: that one resolves what lies below it in the namespace of the
 * process that opens it, ipv4 and ipv6 in the namespace they were opened in.
 */
static int open_pod(const char *path, int fds[DESCRIPTORS], char *error, size_t room)
{
	const char *override = getenv("CNI_NETNS_OVERRIDE");
	bool may_be_own = override && (strcmp(override, "1") == 0 || strcasecmp(override, "true") == 0);
	int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int count = 0;
	struct stat a, b;

	if (own < 0)
		fail(INTERNAL, strerror(errno), "cannot open /proc/self/ns/net");
	fds[NETNS] = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
	if (fds[NETNS] < 0) {
		snprintf(error, room, "cannot open network namespace %s: %s", path, strerror(errno));
	} else if (!may_be_own && fstat(own, &a) == 0 && fstat(fds[NETNS], &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev) {
		snprintf(error, room, "CNI_NETNS %s is the network namespace of the host", path);
	} else if (setns(fds[NETNS], CLONE_NEWNET) < 0) {
		snprintf(error, room, "cannot enter network namespace %s: %s", path, strerror(errno));
	} else {
		fds[NETLINK] = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
		fds[SYSCTL4] = open("/proc/sys/net/ipv4", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		fds[SYSCTL6] = open("/proc/sys/net/ipv6", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fds[NETLINK] < 0 || fds[SYSCTL4] < 0)
			snprintf(error, room, "cannot open netlink or sysctls in %s: %s", path, strerror(errno));
		else
			count = fds[SYSCTL6] < 0 ? SYSCTL6 : DESCRIPTORS; /* a kernel without IPv6 has none */
		if (setns(own, CLONE_NEWNET) < 0) /* delegates run where the runtime would run them */
			fail(INTERNAL, strerror(errno), "cannot return to the host's network namespace");
	}
	close(own);
	return count;
}

static void build_request(struct buffer *r, const char *error)
{
	extern char **environ;
	unsigned char random[16];
	bool fits = buffer_add(r, "TWP1\0\0\0", 8);
	char text[sizeof("TOWPATH_REQUEST=") + 32] = "TOWPATH_REQUEST=";
	size_t length;
	char **e;
	int i;

	for (e = environ; *e; e++)
		if (strncmp(*e, "CNI_", 4) == 0)
			fits = fits && buffer_add(r, *e, strlen(*e) + 1);
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		fail(INTERNAL, strerror(errno), "cannot draw a request id");
	for (i = 0; i < 16; i++)
		sprintf(text + strlen("TOWPATH_REQUEST=") + 2 * i, "%02x", random[i]);
	fits = fits && buffer_add(r, text, strlen(text) + 1);
	if (error[0])
		fits = fits && buffer_add(r, "TOWPATH_NETNS_ERROR=", strlen("TOWPATH_NETNS_ERROR=")) && buffer_add(r, error, strlen(error) + 1);
	if (!fits || r->length > MAX_ENV)
		fail(BAD_ENVIRONMENT, "", "the CNI_ variables are larger than %d bytes", MAX_ENV);
	r->limit = r->length + input.length + 1;
	if (!buffer_add(r, "", 1) || !buffer_add(r, input.data, input.length))
		fail(INTERNAL, strerror(errno), "out of memory");
	length = r->length - 8;
	for (i = 0; i < 4; i++)
		r->data[4 + i] = (char)(length >> 8 * i & 255);
}

/* Calls on the agent's socket block no longer than the deadline allows. */
static bool set_timeouts(int fd)
{
	int64_t left = remaining_ms();
	struct timeval t = { .tv_sec = left / 1000, .tv_usec = left % 1000 * 1000 };

	if (left == 0) {
		errno = ETIMEDOUT;
		return false; /* a zero timeout would mean for ever */
	}
	return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) == 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t)) == 0;
}

static int connect_agent(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int reason;

	memcpy(address.sun_path, socket_path, sizeof(socket_path));
	if (fd >= 0 && set_timeouts(fd) && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	reason = errno;
	if (fd >= 0)
		close(fd);
	errno = reason;
	return -1;
}

static bool send_all(int fd, const struct buffer *b, const int *fds, int count)
{
	union {
		char space[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	size_t sent = 0;

	while (sent < b->length) {
		struct iovec part = { .iov_base = b->data + sent, .iov_len = b->length - sent };
		struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1 };
		ssize_t n;

		if (sent == 0 && count > 0) {
			m.msg_control = control.space;
			m.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
			CMSG_FIRSTHDR(&m)->cmsg_level = SOL_SOCKET;
			CMSG_FIRSTHDR(&m)->cmsg_type = SCM_RIGHTS;
			CMSG_FIRSTHDR(&m)->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
			memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), fds, (size_t)count * sizeof(int));
		}
		if (!set_timeouts(fd))
			return false;
		n = sendmsg(fd, &m, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		sent += (size_t)n;
	}
	return true;
}

static bool receive_all(int fd, void *data, size_t length)
{
	char *at = data;

	while (length > 0) {
		ssize_t n;

		if (!set_timeouts(fd))
			return false;
		n = recv(fd, at, length, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			errno = ECONNRESET;
		if (n <= 0)
			return false;
		at += n;
		length -= (size_t)n;
	}
	return true;
}

/*
 * May the agent have this executed? It is not root, we are: only a file directly in a folder of CNI_PATH, and
 * only CNI_ variables (LD_PRELOAD in its hands would be as good as root).
 */
static const char *refuse_delegate(const char *path, char *const *variables)
{
	const char *folders = getenv("CNI_PATH"), *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) : 0;

	for (; *variables; variables++)
		if (strncmp(*variables, "CNI_", 4) != 0 || !strchr(*variables, '='))
			return "refused: not a CNI_ variable";
	if (path[0] != '/' || length == 0 || !slash[1] || strcmp(slash + 1, ".") == 0 || strcmp(slash + 1, "..") == 0)
		return "refused: not the absolute path of a plugin";
	while (folders && *folders) {
		size_t n = strcspn(folders, ":");
		size_t trimmed = n;

		while (trimmed > 1 && folders[trimmed - 1] == '/')
			trimmed--;
		if (trimmed == length && strncmp(folders, path, length) == 0)
			return NULL;
		folders += n + (folders[n] == ':');
	}
	return "refused: not in a folder of CNI_PATH";
}

/* Feed a delegate, and take what it prints until it has closed both; one that prints without end is killed. */
static void talk(pid_t pid, int in, int out, int err, const char *text, size_t length, struct buffer *stdout_, struct buffer *stderr_)
{
	while (out >= 0 || err >= 0) {
		struct pollfd p[3] = { { in, POLLOUT, 0 }, { out, POLLIN, 0 }, { err, POLLIN, 0 } };
		char chunk[16384];
		ssize_t n;

		if (poll(p, 3, -1) < 0)
			continue;
		if (p[0].revents) {
			n = write(in, text, length < 4096 ? length : 4096);
			if (n > 0) {
				text += n;
				length -= (size_t)n;
			}
			if (length == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
				close(in); /* it need not read what it does not want */
				in = -1;
			}
		}
		if (p[1].revents) {
			n = read(out, chunk, sizeof(chunk));
			if (n > 0 && !buffer_add(stdout_, chunk, (size_t)n)) {
				kill(pid, SIGKILL);
				stdout_->length = stderr_->length = 0;
				buffer_add(stderr_, "printed more than 1 MiB", 23);
				break;
			}
			if (n == 0)
				close(out);
			if (n == 0)
				out = -1;
		}
		if (p[2].revents) {
			n = read(err, chunk, sizeof(chunk));
			if (n > 0)
				buffer_add(stderr_, chunk, (size_t)n);
			if (n == 0)
				close(err);
			if (n == 0)
				err = -1;
		}
	}
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	if (err >= 0)
		close(err);
}

/* Start path with our environment, its CNI_ variables replaced. Returns the pid, or -errno. */
static pid_t start(const char *path, char **variables, size_t count, const int stdio[3])
{
	extern char **environ;
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	char *argv[] = { (char *)path, NULL };
	char **e, **environment;
	sigset_t signals;
	size_t own = 0;
	pid_t pid;
	int i, attempt, error;

	for (e = environ; *e; e++)
		own++;
	environment = calloc(own + count + 1, sizeof(char *));
	if (!environment)
		return -ENOMEM;
	memcpy(environment, variables, count * sizeof(char *));
	for (e = environ; *e; e++)
		if (strncmp(*e, "CNI_", 4) != 0)
			environment[count++] = *e;
	posix_spawn_file_actions_init(&actions);
	for (i = 0; i < 3; i++)
		posix_spawn_file_actions_adddup2(&actions, stdio[i], i);
	posix_spawnattr_init(&attributes);
	sigemptyset(&signals);
	sigaddset(&signals, SIGPIPE);
	posix_spawnattr_setsigdefault(&attributes, &signals);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
	for (attempt = 0; (error = posix_spawn(&pid, path, &actions, &attributes, argv, environment)) == ETXTBSY && attempt < 5; attempt++)
		sleep(1); /* it is just being installed: libcni waits so as well */
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	free(environment);
	return error ? -error : pid;
}

/* Execute a delegate as libcni would. Status as a shell gives it: 127 not executed, 128 + n killed by n. */
static uint32_t execute(struct buffer *request, struct buffer *out, struct buffer *err)
{
	int in[2], from[2], errors[2], status = 0;
	const char *path = request->data, *refusal;
	char **variables = NULL;
	size_t count = 0, at = strnlen(path, request->length) + 1;
	pid_t pid;

	while (at < request->length && request->data[at]) {
		char **more = realloc(variables, (count + 2) * sizeof(char *));

		if (!more)
			fail(INTERNAL, strerror(errno), "out of memory");
		variables = more;
		variables[count++] = request->data + at;
		variables[count] = NULL;
		at += strnlen(request->data + at, request->length - at) + 1;
	}
	if (at++ >= request->length || !variables)
		refusal = "refused: not a request to execute anything";
	else
		refusal = refuse_delegate(path, variables);
	if (refusal) {
		free(variables);
		buffer_add(err, refusal, strlen(refusal));
		return 127;
	}
	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0 || pipe2(errors, O_CLOEXEC) < 0)
		fail(INTERNAL, strerror(errno), "cannot make a pipe");
	pid = start(path, variables, count, (int[]){ in[0], from[1], errors[1] });
	free(variables);
	close(in[0]);
	close(from[1]);
	close(errors[1]);
	fcntl(in[1], F_SETFL, O_NONBLOCK);
	if (pid < 0)
		buffer_add(err, strerror(-pid), strlen(strerror(-pid)));
	talk(pid, in[1], from[0], errors[0], request->data + at, request->length - at, out, err);
	if (pid < 0)
		return 127;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFSIGNALED(status) ? 128 + (uint32_t)WTERMSIG(status) : (uint32_t)WEXITSTATUS(status);
}

static bool delegate(int fd, struct buffer *request)
{
	struct buffer out = { .limit = MAX_STDOUT }, err = { .limit = MAX_STDERR };
	struct buffer reply = { .limit = 13 + MAX_STDOUT + MAX_STDERR };
	int64_t started = now_ms();
	uint32_t status = execute(request, &out, &err);
	bool sent;

	deadline += now_ms() - started; /* patience is for the agent; a delegate takes what it takes */
	sent = buffer_add(&reply, "X", 1) && buffer_u32(&reply, status) && buffer_u32(&reply, out.length) &&
	       buffer_add(&reply, out.data ? out.data : "", out.length) && buffer_u32(&reply, err.length) &&
	       buffer_add(&reply, err.data ? err.data : "", err.length) && send_all(fd, &reply, NULL, 0);
	free(out.data);
	free(err.data);
	free(reply.data);
	return sent;
}

/* Do what the agent says until it answers. Leaves the process with the answer, or returns why there is none. */
static enum outcome converse(int fd)
{
	for (;;) {
		struct buffer body = { .limit = MAX_REPLY };
		unsigned char type, code[4], length[4];

		if (!receive_all(fd, &type, 1))
			return DROPPED;
		if (type != 'R' && type != 'E')
			return GARBLED;
		if ((type == 'R' && !receive_all(fd, code, 4)) || !receive_all(fd, length, 4))
			return DROPPED;
		body.length = u32(length);
		if (body.length > MAX_REPLY)
			return GARBLED;
		body.data = malloc(body.length + 1);
		if (!body.data)
			fail(INTERNAL, strerror(errno), "out of memory");
		if (!receive_all(fd, body.data, body.length)) {
			free(body.data);
			return DROPPED;
		}
		body.data[body.length] = 0;
		if (type == 'R')
			_exit(write_all(STDOUT_FILENO, body.data, body.length) ? (int)(u32(code) & 255) : 1);
		if (!delegate(fd, &body)) {
			free(body.data);
			return DROPPED;
		}
		free(body.data);
	}
}

static const struct command *validate(const char *name)
{
	static const char *const variables[] = { "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME" };
	const struct command *c = NULL;
	char missing[64] = "";
	size_t i;

	for (i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (strcmp(name, commands[i].name) == 0)
			c = &commands[i];
	if (!c)
		fail(BAD_ENVIRONMENT, "", "unknown CNI_COMMAND: %s", name);
	for (i = 0; i < 3; i++) {
		const char *value = getenv(variables[i]);

		if (c->required & 1 << i && !(value && *value)) {
			strcat(missing, missing[0] ? "," : "");
			strcat(missing, variables[i]);
		}
	}
	if (missing[0])
		fail(BAD_ENVIRONMENT, "", "required env variables [%s] missing", missing);
	return c;
}

int main(void)
{
	const char *name = getenv("CNI_COMMAND"), *netns = getenv("CNI_NETNS");
	struct buffer request = { .limit = MAX_ENV + 4096 };
	char error[4096] = "", reason[128] = "";
	const struct command *command;
	int fds[DESCRIPTORS], count = 0, fd;
	int64_t started = now_ms(), pause = 5;

	signal(SIGPIPE, SIG_IGN);
	for (fd = 0; fd < 3; fd++) /* else a socket of ours might take the place of a closed stdout */
		if (fcntl(fd, F_GETFD) < 0)
			open("/dev/null", fd ? O_WRONLY : O_RDONLY);
	if (!name || !*name) {
		fputs("CNI plugin towpath-cni: hands calls to the Towpath agent\nCNI protocol versions supported: ", stderr);
		fputs("0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n", stderr);
		return 0;
	}
	if (strcmp(name, "VERSION") == 0)
		answer_version();
	command = validate(name);
	deadline = started + command->patience_ms;
	read_stdin(command->patience_ms);
	find_version();
	find_socket();
	if (command->descriptors && netns && *netns)
		count = open_pod(netns, fds, error, sizeof(error));
	if (!(command->required & PODNS))
		error[0] = 0; /* DEL does not care: the namespace may be long gone */
	build_request(&request, error);
	for (;;) {
		fd = connect_agent();
		if (fd >= 0) {
			enum outcome end;

			send_all(fd, &request, fds, count); /* even if it was not taken: a refusal can be read */
			end = converse(fd);
			snprintf(reason, sizeof(reason), "it broke off: %s", strerror(errno));
			close(fd);
			if (end == GARBLED)
				fail(command->code == UNAVAILABLE ? UNAVAILABLE : IO_FAILURE, "are towpath-cni and the agent of one release?",
				     "the answer of the Towpath agent on %s is not understood", socket_path);
		} else {
			snprintf(reason, sizeof(reason), "cannot connect: %s", strerror(errno));
		}
		if (remaining_ms() <= pause)
			fail(command->code, reason, "the Towpath agent on %s did not answer within %.1f s", socket_path, (double)(now_ms() - started) / 1000);
		usleep((useconds_t)pause * 1000);
		pause = pause < 160 ? 2 * pause : pause;
	}
}
