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
 *             'K' nothing more: kill the delegate that runs, if one does; it is answered as always
 *             'H' u32 length, "netfilter" or "kubelet", NUL, path: hand over descriptors (hand_over, below)
 *   executed  'X' u32 status, u32 length, its stdout, u32 length, its stderr;
 *             for 'H' with SCM_RIGHTS if the status is 0, else with the reason instead of stderr
 *
 * One request may be sent several times, to one agent after another; TOWPATH_REQUEST stays the same.
 * All memory is static: buffers of a fixed size, untouched until they are used.
 */
#define _GNU_SOURCE
#include "start.h"

#define DEFAULT_SOCKET "/run/towpath/cni.sock"
#define SOCKET_FILE "towpath-cni.socket" /* beside the executable: one line, another socket's path */
#define ABOUT "CNI plugin towpath-cni: hands calls to the Towpath agent\nCNI protocol versions supported: "
#ifndef PATIENCE_MS
#define PATIENCE_MS 60000 /* with which ADD, DEL and GC wait for an agent that is down */
#endif
#ifndef ORPHAN_MS
#define ORPHAN_MS 30000 /* a delegate may go on so long when the agent that wanted it is gone */
#endif

enum { MAX_STDIN = 1 << 20, MAX_ENV = 1 << 18, MAX_REPLY = 4 << 20, MAX_STDOUT = 1 << 20, MAX_STDERR = 1 << 16 };
enum { MAX_DELEGATE_ENV = 4096 };
enum { BAD_ENVIRONMENT = 4, IO_FAILURE = 5, UNDECODABLE = 6, TRY_LATER = 11, UNAVAILABLE = 50, INTERNAL = 999 };
enum { NETNS, NETLINK, SYSCTL4, SYSCTL6, DESCRIPTORS };
enum { CONTAINERID = 1, PODNS = 2, IFNAME = 4 };
enum outcome { DROPPED, GARBLED };

/*
 * How long a command waits for the agent, and which error it ends with. A restart of the agent must not fail
 * a pod, hence ADD and DEL wait long. A runtime asks for STATUS every few seconds and believes the node's
 * network dead while it hangs. CHECK changes nothing and can simply be asked again. Seldom is GC: it may wait,
 * and the agent may have much to do.
 */
static const struct command {
	const char *name;
	int required;
	bool descriptors;
	int64_t patience_ms;
	int code;
} commands[] = {
	{ "ADD", CONTAINERID | PODNS | IFNAME, true, PATIENCE_MS, TRY_LATER },
	{ "DEL", CONTAINERID | IFNAME, true, PATIENCE_MS, TRY_LATER },
	{ "CHECK", CONTAINERID | PODNS | IFNAME, true, PATIENCE_MS / 6, TRY_LATER },
	{ "GC", 0, false, PATIENCE_MS, TRY_LATER },
	{ "STATUS", 0, false, 700, UNAVAILABLE },
	/* Not CNI: towpath-ns lends a hand. Without a namespace to run plugins, with one to bring its descriptors. */
	{ "ATTEND", 0, true, PATIENCE_MS, TRY_LATER },
};

static const char *const versions[] = { "1.1.0", "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0" };
enum { VERSIONS = sizeof(versions) / sizeof(*versions) }; /* our own first */

struct buffer {
	char *data;
	size_t length, limit;
	bool overflow;
};
#define BUFFER(name, size)                                           \
	static char name##_space[size];                              \
	static struct buffer name = { name##_space, 0, size, false }

BUFFER(input, MAX_STDIN);
BUFFER(request, 8 + MAX_ENV + 1 + MAX_STDIN);
BUFFER(reply, 9 + MAX_REPLY);
BUFFER(executed, 13 + MAX_STDOUT + MAX_STDERR);
BUFFER(delegate_out, MAX_STDOUT);
BUFFER(delegate_err, MAX_STDERR);
BUFFER(output, 16384);
BUFFER(netns_error, 8192);
BUFFER(reason, 256);
BUFFER(seconds, 24);

static const char *cni_version; /* of this call, for what is printed here */
static int64_t deadline;
static uint64_t signals; /* blocked when we were started */
static bool unwanted; /* the delegate to be started is to be killed at once */
static char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)] = DEFAULT_SOCKET;

/* All of it or nothing: what does not fit is marked. */
static bool add(struct buffer *b, const void *data, size_t length)
{
	if (length > b->limit - b->length) {
		b->overflow = true;
		return false;
	}
	memcpy(b->data + b->length, data, length);
	b->length += length;
	return true;
}

static bool add_text(struct buffer *b, const char *text)
{
	return add(b, text, strlen(text));
}

static bool add_number(struct buffer *b, int64_t number)
{
	char digits[20];
	size_t at = sizeof(digits);

	do
		digits[--at] = (char)('0' + number % 10);
	while ((number /= 10) > 0);
	return add(b, digits + at, sizeof(digits) - at);
}

static void put_u32(char *to, size_t value)
{
	for (int i = 0; i < 4; i++)
		to[i] = (char)(value >> 8 * i & 255);
}

static bool add_u32(struct buffer *b, size_t value)
{
	char bytes[4];

	put_u32(bytes, value);
	return add(b, bytes, 4);
}

static uint32_t get_u32(const char *from)
{
	uint32_t value = 0;

	for (int i = 0; i < 4; i++)
		value |= (uint32_t)(unsigned char)from[i] << 8 * i;
	return value;
}

/* Inside of a JSON string; bytes that are not plain ASCII become '?', as nothing says they are UTF-8. */
static void add_json(struct buffer *b, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		char c = text[i] < 32 || text[i] > 126 ? '?' : text[i];

		if (c == '"' || c == '\\')
			add(b, "\\", 1);
		add(b, &c, 1);
	}
}

static bool equal(const char *a, const char *b)
{
	return strlen(a) == strlen(b) && memcmp(a, b, strlen(a)) == 0;
}

static bool starts(const char *text, const char *with)
{
	for (; *with; text++, with++)
		if (*text != *with)
			return false;
	return true;
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static bool equal_fold(const char *text, const char *to)
{
	for (; *text && lower(*text) == *to; text++, to++)
		;
	return *text == *to;
}

static const char *variable(const char *name)
{
	for (char **e = environment; *e; e++)
		if (starts(*e, name) && (*e)[strlen(name)] == '=')
			return *e + strlen(name) + 1;
	return "";
}

static int64_t remaining_ms(void)
{
	int64_t left = deadline - now_ms();

	return left > 0 ? left : 0;
}

static bool write_all(int fd, const char *data, size_t length)
{
	while (length > 0) {
		long n = sys_write(fd, data, length);

		if (n == -EAGAIN)
			sys_poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, -1);
		else if (n < 0 && n != -EINTR)
			return false;
		if (n > 0) {
			data += n;
			length -= (size_t)n;
		}
	}
	return true;
}

/* Print a CNI error and leave. The message is the concatenation of the texts up to a null pointer. */
__attribute__((noreturn)) static void fail(int code, const char *details, const char *const texts[])
{
	output.length = 0;
	add_text(&output, "{\"cniVersion\":\"");
	add_text(&output, cni_version);
	add_text(&output, "\",\"code\":");
	add_number(&output, code);
	add_text(&output, ",\"msg\":\"");
	for (; *texts; texts++)
		add_json(&output, *texts, strlen(*texts) < 4096 ? strlen(*texts) : 4096);
	add_text(&output, "\",\"details\":\"");
	add_json(&output, details, strlen(details) < 2048 ? strlen(details) : 2048);
	add_text(&output, "\"}\n");
	write_all(1, output.data, output.length);
	sys_exit(1);
}
#define FAIL(code, details, ...) fail(code, details, (const char *const[]){ __VA_ARGS__, NULL })

/*
 * The version the caller speaks, if it is one we speak. Not parsing: a look for the first "cniVersion": "x.y.z".
 * It only decides what our own few answers call themselves.
 */
static void find_version(void)
{
	static const char key[] = "\"cniversion\"";
	size_t at = 0, matched = 0;

	while (at < input.length && matched < sizeof(key) - 1) {
		matched = lower(input.data[at]) == key[matched] ? matched + 1 : input.data[at] == '"';
		at++;
	}
	while (at < input.length && (input.data[at] == ':' || (input.data[at] > 0 && input.data[at] <= ' ')))
		at++;
	for (size_t i = 0; i < VERSIONS; i++) {
		size_t length = strlen(versions[i]);

		if (input.length - at >= length + 2 && input.data[at] == '"' &&
		    memcmp(input.data + at + 1, versions[i], length) == 0 && input.data[at + 1 + length] == '"')
			cni_version = versions[i];
	}
}

/* Read stdin to its end, or fail; if it need not end, until it is silent. */
static void read_stdin(int64_t patience_ms, bool must_end)
{
	int64_t until = now_ms() + patience_ms;

	for (;;) {
		struct pollfd p = { .fd = 0, .events = POLLIN };
		int64_t left = until - now_ms();
		long n = sys_poll(&p, 1, left > 0 ? left : 0);

		if (n == 0 && must_end)
			FAIL(IO_FAILURE, "", "the network configuration on stdin does not end");
		if (n > 0)
			n = sys_read(0, input.data + input.length, input.limit - input.length);
		else if (n == 0)
			return;
		if (n == -EINTR || n == -EAGAIN)
			continue;
		if (n < 0 && must_end)
			FAIL(IO_FAILURE, error_text(n), "cannot read the network configuration from stdin");
		if (n <= 0)
			return;
		input.length += (size_t)n;
		if (input.length == input.limit)
			FAIL(UNDECODABLE, "", "the network configuration is larger than 1 MiB");
	}
}

static int answer_version(void)
{
	read_stdin(200, false);
	find_version();
	add_text(&output, "{\"cniVersion\":\"");
	add_text(&output, cni_version);
	add_text(&output, "\",\"supportedVersions\":[");
	for (size_t i = 1; i <= VERSIONS; i++) {
		add_text(&output, i > 1 ? ",\"" : "\"");
		add_text(&output, versions[i % VERSIONS]);
		add_text(&output, "\"");
	}
	add_text(&output, "]}\n");
	return write_all(1, output.data, output.length) ? 0 : 1;
}

/* An agent's socket other than the default is named in a file beside the executable. */
static void find_socket(void)
{
	char path[4096];
	long n = sys_readlink("/proc/self/exe", path, sizeof(path) - sizeof(SOCKET_FILE)), length = 0;
	int fd;

	while (n > 0 && path[n - 1] != '/')
		n--;
	if (n <= 0)
		return;
	memcpy(path + n, SOCKET_FILE, sizeof(SOCKET_FILE));
	fd = sys_open(path, O_RDONLY);
	if (fd < 0)
		return;
	n = sys_read(fd, path, sizeof(path) - 1);
	sys_close(fd);
	while (length < n && path[length] != '\n')
		length++;
	path[length] = 0;
	if (path[0] != '/' || (size_t)length >= sizeof(socket_path))
		FAIL(IO_FAILURE, path, SOCKET_FILE " does not hold the path of a socket");
	memcpy(socket_path, path, (size_t)length + 1);
}

static bool same_file(int a, int b)
{
	struct statx x, y;

	return sys_statx(a, &x) == 0 && sys_statx(b, &y) == 0 && x.stx_ino == y.stx_ino &&
	       x.stx_dev_major == y.stx_dev_major && x.stx_dev_minor == y.stx_dev_minor;
}

static int no_netns(const char *what, const char *path, const char *why)
{
	add_text(&netns_error, what);
	add_text(&netns_error, path);
	add_text(&netns_error, why);
	return 0;
}

/*
 * Fill fds with what the agent needs of the pod's namespace. Returns how many there are, 0 with the reason in
 * netns_error. Two sysctl folders, not /proc/sys/net: that one resolves what lies below it in the namespace of
 * the process that opens it, ipv4 and ipv6 in the namespace they were opened in.
 */
static int open_pod(const char *path, int fds[DESCRIPTORS])
{
	const char *override = variable("CNI_NETNS_OVERRIDE");
	bool may_be_own = equal(override, "1") || equal_fold(override, "true");
	int own = sys_open("/proc/self/ns/net", O_RDONLY), entered;

	if (own < 0)
		FAIL(INTERNAL, error_text(own), "cannot open /proc/self/ns/net");
	fds[NETNS] = sys_open(path, O_RDONLY | O_NONBLOCK); /* a FIFO must not hang us */
	if (fds[NETNS] < 0)
		return no_netns("cannot open network namespace ", path, error_text(fds[NETNS]));
	if (!may_be_own && same_file(own, fds[NETNS]))
		return no_netns("CNI_NETNS ", path, " is the network namespace of the host");
	entered = sys_setns(fds[NETNS]);
	if (entered < 0)
		return no_netns("cannot enter network namespace ", path, error_text(entered));
	fds[NETLINK] = sys_socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	fds[SYSCTL4] = sys_open("/proc/sys/net/ipv4", O_RDONLY | O_DIRECTORY);
	fds[SYSCTL6] = sys_open("/proc/sys/net/ipv6", O_RDONLY | O_DIRECTORY);
	if (sys_setns(own) < 0) /* delegates run where the runtime would run them */
		FAIL(INTERNAL, "", "cannot return to the network namespace of the host");
	sys_close(own);
	if (fds[NETLINK] < 0)
		return no_netns("cannot open a netlink socket in ", path, error_text(fds[NETLINK]));
	if (fds[SYSCTL4] < 0)
		return no_netns("cannot open /proc/sys/net/ipv4 in ", path, error_text(fds[SYSCTL4]));
	return fds[SYSCTL6] < 0 ? SYSCTL6 : DESCRIPTORS; /* a kernel without IPv6 has no such folder */
}

static void build_request(bool tell_netns_error)
{
	unsigned char random[16];

	add(&request, "TWP1\0\0\0", 8);
	request.limit = 8 + MAX_ENV;
	for (char **e = environment; *e; e++)
		if (starts(*e, "CNI_"))
			add(&request, *e, strlen(*e) + 1);
	if (!sys_getrandom(random, sizeof(random)))
		FAIL(INTERNAL, "", "cannot draw a request id");
	add_text(&request, "TOWPATH_REQUEST=");
	for (size_t i = 0; i < 2 * sizeof(random); i++)
		add(&request, &"0123456789abcdef"[random[i / 2] >> (i % 2 ? 0 : 4) & 15], 1);
	add(&request, "", 1);
	if (tell_netns_error && netns_error.length > 0) {
		add_text(&request, "TOWPATH_NETNS_ERROR=");
		add(&request, netns_error.data, netns_error.length);
		add(&request, "", 1);
	}
	if (request.overflow)
		FAIL(BAD_ENVIRONMENT, "", "the CNI_ variables are larger than 256 KiB");
	request.limit = sizeof(request_space);
	add(&request, "", 1);
	add(&request, input.data, input.length);
	put_u32(request.data + 4, request.length - 8);
}

/* Wait until the agent's socket is ready; false if patience ends first. */
static bool ready(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };
	long n;

	do
		n = sys_poll(&p, 1, remaining_ms());
	while (n == -EINTR);
	return n > 0;
}

/* 0, or a negative errno. */
static long send_all(int fd, const struct buffer *b, const int *fds, int count)
{
	union {
		char space[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
		struct cmsghdr header;
	} control = { .header = { CMSG_LEN((size_t)count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	size_t sent = 0;

	if (count > 0)
		memcpy(CMSG_DATA(&control.header), fds, (size_t)count * sizeof(int));
	while (sent < b->length) {
		struct iovec part = { .iov_base = b->data + sent, .iov_len = b->length - sent };
		struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1 };
		long n;

		if (sent == 0 && count > 0) {
			m.msg_control = &control;
			m.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
		}
		n = sys_sendmsg(fd, &m);
		if (n == -EAGAIN && !ready(fd, POLLOUT))
			return -ETIMEDOUT;
		if (n < 0 && n != -EINTR && n != -EAGAIN)
			return n;
		sent += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/*
 * May the agent have this executed? It is not root, we are: only a file directly in a folder of CNI_PATH, and
 * only CNI_ variables (LD_PRELOAD in its hands would be as good as root).
 */
static const char *refuse_delegate(const char *path, char *const *variables)
{
	const char *folders = variable("CNI_PATH");
	size_t length = strlen(path);

	for (; *variables; variables++)
		if (!starts(*variables, "CNI_"))
			return "refused: not a CNI_ variable";
	while (length > 0 && path[length - 1] != '/')
		length--;
	if (path[0] != '/' || length < 2 || !path[length] || equal(path + length, ".") || equal(path + length, ".."))
		return "refused: not the absolute path of a plugin";
	length--;
	while (*folders) {
		size_t n = 0, trimmed;

		while (folders[n] && folders[n] != ':')
			n++;
		for (trimmed = n; trimmed > 1 && folders[trimmed - 1] == '/'; trimmed--)
			;
		if (trimmed == length && memcmp(folders, path, length) == 0)
			return NULL;
		folders += n + (folders[n] == ':');
	}
	return "refused: not in a folder of CNI_PATH";
}

/* Take what there is to read. False at the end; a delegate that prints without end is killed. */
static bool drain(int fd, struct buffer *to, int pid)
{
	char chunk[16384];
	long n = sys_read(fd, chunk, sizeof(chunk));

	if (n == -EINTR || n == -EAGAIN)
		return true;
	if (n <= 0)
		return false;
	if (!add(to, chunk, (size_t)n) && to == &delegate_out) {
		sys_kill(pid, SIGKILL);
		delegate_out.length = delegate_err.length = 0;
		add_text(&delegate_err, "printed more than 1 MiB");
		return false;
	}
	return true;
}

/* Feed a delegate, and take what it prints, until it has closed both or the agent wants it killed. */
static void talk(int agent, int pid, int in, int out, int err, const char *text, size_t length)
{
	int64_t until = -1;

	while (out >= 0 || err >= 0) {
		struct pollfd p[4] = { { in, POLLOUT, 0 }, { out, POLLIN, 0 }, { err, POLLIN, 0 }, { agent, POLLIN, 0 } };
		int64_t left = until - now_ms();
		char word = 0;
		long n = sys_poll(p, 4, until < 0 ? -1 : left > 0 ? left : 0);

		if (n < 0)
			continue;
		if (p[3].revents && (n = sys_read(agent, &word, 1)) != -EINTR && n != -EAGAIN && n <= 0) {
			agent = -1; /* it may come to an end: the next agent begins with undoing it */
			until = now_ms() + ORPHAN_MS;
		}
		if (unwanted || word == 'K' || (until >= 0 && now_ms() >= until)) {
			sys_kill(pid, SIGKILL);
			sys_kill(-pid, SIGKILL); /* and what it has started */
			break;
		}
		if (p[0].revents) {
			n = length > 0 ? sys_write(in, text, length) : 0;
			if (n > 0) {
				text += n;
				length -= (size_t)n;
			}
			if (length == 0 || (n < 0 && n != -EINTR && n != -EAGAIN)) {
				sys_close(in); /* it need not read what it does not want */
				in = -1;
			}
		}
		if (p[1].revents && !drain(out, &delegate_out, pid)) {
			sys_close(out);
			out = -1;
			if (delegate_out.overflow)
				break;
		}
		if (p[2].revents && !drain(err, &delegate_err, pid)) {
			sys_close(err);
			err = -1;
		}
	}
	for (size_t i = 0; i < 3; i++)
		if ((int[]){ in, out, err }[i] >= 0)
			sys_close((int[]){ in, out, err }[i]);
}

/* In the child: become the plugin, or say through the pipe why not. */
__attribute__((noreturn)) static void become(const char *path, char **variables, const int stdio[3], int failed)
{
	char *arguments[] = { (char *)path, NULL };
	long error;

	sys_own_group();
	for (int i = 0; i < 3; i++)
		sys_dup(stdio[i], i);
	sys_block(signals);
	for (int attempt = 0; (error = sys_execve(path, arguments, variables)) == -ETXTBSY && attempt < 5; attempt++)
		sys_poll(NULL, 0, 1000); /* it is just being installed: libcni waits so as well */
	sys_write(failed, &error, sizeof(error));
	sys_exit(127);
}

/* Execute a plugin with our environment, its CNI_ variables replaced. Status as in a shell. */
static uint32_t spawn(int agent, const char *path, char **variables, const char *text, size_t length)
{
	int in[2], out[2], err[2], failed[2], pid, status;
	long error = 0;

	if (sys_pipe(in) < 0 || sys_pipe(out) < 0 || sys_pipe(err) < 0 || sys_pipe(failed) < 0)
		FAIL(INTERNAL, "", "cannot make a pipe");
	pid = sys_fork();
	if (pid == 0)
		become(path, variables, (int[]){ in[0], out[1], err[1] }, failed[1]);
	sys_close(in[0]);
	sys_close(out[1]);
	sys_close(err[1]);
	sys_close(failed[1]);
	if (pid < 0)
		FAIL(INTERNAL, error_text(pid), "cannot start a process");
	sys_fcntl(in[1], F_SETFL, O_NONBLOCK);
	talk(agent, pid, in[1], out[0], err[0], text, length);
	status = sys_wait(pid);
	if (sys_read(failed[0], &error, sizeof(error)) == sizeof(error))
		add_text(&delegate_err, error_text(error));
	sys_close(failed[0]);
	return WIFSIGNALED(status) ? 128 + (uint32_t)WTERMSIG(status) : (uint32_t)WEXITSTATUS(status);
}

/*
 * Execute what the body of an 'E' frame says, as libcni would; into delegate_out and delegate_err. The folders of
 * CNI_PATH are the caller's, whatever the agent says: a delegate may be this program, and would believe it.
 */
static uint32_t execute(int agent, char *body, size_t length)
{
	static char *variables[MAX_DELEGATE_ENV + 1];
	size_t count = 0, at;
	const char *refusal;

	body[length] = 0;
	at = strlen(body) + 1;
	while (at < length && body[at] && count < MAX_DELEGATE_ENV) {
		if (!starts(body + at, "CNI_PATH="))
			variables[count++] = body + at;
		at += strlen(body + at) + 1;
	}
	variables[count] = NULL;
	refusal = refuse_delegate(body, variables);
	if (at >= length || body[at] || count == 0)
		refusal = "refused: not a request to execute anything";
	for (char **e = environment; *e && !refusal; e++) {
		if (count == MAX_DELEGATE_ENV)
			refusal = "refused: too many variables";
		else if (!starts(*e, "CNI_") || starts(*e, "CNI_PATH="))
			variables[count++] = *e;
	}
	variables[count] = NULL;
	delegate_out.length = delegate_err.length = 0;
	delegate_out.overflow = false;
	if (refusal) {
		add_text(&delegate_err, refusal);
		return 127;
	}
	return spawn(agent, body, variables, body + at + 1, length - at - 1);
}

/* Sockets of nftables in a pod's namespace: one to change tables by, which then is their owner, one to ask by. */
static int open_netfilter(const char *path, int fds[2])
{
	int own = sys_open("/proc/self/ns/net", O_RDONLY), pod = sys_open(path, O_RDONLY | O_NONBLOCK), entered = -EBADF;

	if (own < 0)
		FAIL(INTERNAL, error_text(own), "cannot open /proc/self/ns/net");
	if (pod < 0 || same_file(own, pod)) {
		add_text(&delegate_err, pod < 0 ? error_text(pod) : "refused: the network namespace of the host");
	} else if ((entered = sys_setns(pod)) < 0) {
		add_text(&delegate_err, error_text(entered));
	} else {
		for (int i = 0; i < 2; i++)
			fds[i] = sys_socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
		if (sys_setns(own) < 0)
			FAIL(INTERNAL, "", "cannot return to the network namespace of the host");
		if (fds[0] < 0 || fds[1] < 0)
			add_text(&delegate_err, error_text(fds[0] < 0 ? fds[0] : fds[1]));
	}
	sys_close(own);
	if (pod >= 0)
		sys_close(pod);
	return entered < 0 ? 0 : 2;
}

/* A connection to the kubelet's list of pods' devices. No other socket: to be connected to some is to be root. */
static int open_kubelet(const char *path, int fds[1])
{
	static const char tail[] = "/pod-resources/kubelet.sock";
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length = strlen(path);
	long error;

	if (path[0] != '/' || length < sizeof(tail) || length >= sizeof(address.sun_path) ||
	    !equal(path + length - (sizeof(tail) - 1), tail)) {
		add_text(&delegate_err, "refused: not the kubelet's socket pod-resources/kubelet.sock");
		return 0;
	}
	memcpy(address.sun_path, path, length);
	fds[0] = sys_socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	error = fds[0] < 0 ? fds[0] : sys_connect(fds[0], &address);
	if (error < 0)
		add_text(&delegate_err, error_text(error));
	return 1;
}

/* Open what an 'H' frame asks for, which takes root or the pod's namespace, and pass it on. */
static long hand_over(int fd, char *body, size_t length)
{
	int fds[2] = { -1, -1 }, count = 0;
	size_t kind;
	long error;

	body[length] = 0;
	kind = strlen(body);
	delegate_err.length = 0;
	if (kind < length && equal(body, "netfilter"))
		count = open_netfilter(body + kind + 1, fds);
	else if (kind < length && equal(body, "kubelet"))
		count = open_kubelet(body + kind + 1, fds);
	else
		add_text(&delegate_err, "refused: not a request to hand anything over");
	executed.length = 0;
	add(&executed, "X", 1);
	add_u32(&executed, delegate_err.length > 0 ? 1 : 0);
	add_u32(&executed, 0);
	add_u32(&executed, delegate_err.length);
	add(&executed, delegate_err.data, delegate_err.length);
	error = send_all(fd, &executed, fds, delegate_err.length > 0 ? 0 : count);
	for (int i = 0; i < count; i++)
		if (fds[i] >= 0)
			sys_close(fds[i]);
	return error;
}

static long delegate(int fd, char *body, size_t length)
{
	int64_t started = now_ms();
	uint32_t status = execute(fd, body, length);

	deadline += now_ms() - started; /* patience is for the agent; a delegate takes what it takes */
	executed.length = 0;
	add(&executed, "X", 1);
	add_u32(&executed, status);
	add_u32(&executed, delegate_out.length);
	add(&executed, delegate_out.data, delegate_out.length);
	add_u32(&executed, delegate_err.length);
	add(&executed, delegate_err.data, delegate_err.length);
	return send_all(fd, &executed, NULL, 0);
}

/* Do what the agent says until it answers. Leaves the process with the answer, or returns why there is none. */
static enum outcome converse(int fd, long *error)
{
	reply.length = 0;
	for (;;) {
		char type = reply.data[0];
		size_t header = type == 'R' ? 9 : 5;
		long n;

		if (reply.length > 0 && type != 'R' && type != 'E' && type != 'H')
			return GARBLED;
		if (reply.length >= header) {
			size_t length = get_u32(reply.data + header - 4);

			unwanted = type == 'E' && reply.length == header + length + 1 && reply.data[header + length] == 'K';
			reply.length -= unwanted;
			if (length > MAX_REPLY || reply.length > header + length)
				return GARBLED;
			if (reply.length == header + length && type == 'R')
				sys_exit(write_all(1, reply.data + header, length) ? (int)(get_u32(reply.data + 1) & 255) : 1);
			if (reply.length == header + length) {
				*error = type == 'H' ? hand_over(fd, reply.data + header, length) :
						       delegate(fd, reply.data + header, length);
				if (*error < 0)
					return DROPPED;
				reply.length = 0;
			}
		}
		*error = -ETIMEDOUT;
		if (!ready(fd, POLLIN))
			return DROPPED;
		n = sys_read(fd, reply.data + reply.length, sizeof(reply_space) - reply.length);
		if (n == -EINTR || n == -EAGAIN)
			continue;
		*error = n == 0 ? -ECONNRESET : n;
		if (n <= 0)
			return DROPPED;
		reply.length += (size_t)n;
		if (reply.data[0] == 'K') { /* the delegate was done by itself meanwhile */
			reply.length--;
			for (size_t i = 0; i < reply.length; i++)
				reply.data[i] = reply.data[i + 1];
		}
	}
}

static const struct command *validate(const char *name)
{
	static const char *const variables[] = { "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME" };
	const char *missing[3] = { "", "", "" }, *comma[3] = { "", "", "" };
	const struct command *c = NULL;
	int count = 0;

	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (equal(name, commands[i].name))
			c = &commands[i];
	if (!c)
		FAIL(BAD_ENVIRONMENT, "", "unknown CNI_COMMAND: ", name);
	for (int i = 0; i < 3; i++)
		if (c->required & 1 << i && !*variable(variables[i])) {
			comma[count] = count ? "," : "";
			missing[count++] = variables[i];
		}
	if (count)
		FAIL(BAD_ENVIRONMENT, "", "required env variables [", missing[0], comma[1], missing[1], comma[2], missing[2],
		     "] missing");
	return c;
}

/* Ask one agent after the other until one answers or patience ends. */
__attribute__((noreturn)) static void ask(const struct command *command, int64_t started, const int *fds, int count)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int64_t pause = 5;

	memcpy(address.sun_path, socket_path, sizeof(socket_path));
	for (;;) {
		int fd = sys_socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		long error = fd < 0 ? fd : sys_connect(fd, &address);

		reason.length = 0;
		add_text(&reason, error < 0 ? "cannot connect: " : "it broke off: ");
		if (error == 0) {
			send_all(fd, &request, fds, count); /* even if it was not taken: a refusal can be read */
			if (converse(fd, &error) == GARBLED)
				FAIL(command->code == UNAVAILABLE ? UNAVAILABLE : IO_FAILURE,
				     "are towpath-cni and the agent of one release?", "the answer of the Towpath agent on ",
				     socket_path, " is not understood");
		}
		add_text(&reason, error_text(error));
		add(&reason, "", 1);
		if (fd >= 0)
			sys_close(fd);
		if (remaining_ms() <= pause)
			break;
		sys_poll(NULL, 0, pause);
		pause = pause < 160 ? 2 * pause : pause;
	}
	add_number(&seconds, (now_ms() - started + 500) / 1000);
	add(&seconds, "", 1);
	FAIL(command->code, reason.data, "the Towpath agent on ", socket_path, " did not answer within ", seconds.data,
	     " s");
}

static int shim(void)
{
	const char *name = variable("CNI_COMMAND"), *netns = variable("CNI_NETNS");
	const struct command *command;
	int fds[DESCRIPTORS], count = 0;
	int64_t started = now_ms();

	signals = sys_block(1UL << (SIGPIPE - 1));
	cni_version = versions[0];
	for (int fd = 0; fd < 3; fd++) /* else a socket of ours might take the place of a closed stdout */
		if (sys_fcntl(fd, F_GETFD, 0) < 0)
			sys_open("/dev/null", O_RDWR);
	if (!*name) {
		add_text(&output, ABOUT);
		for (size_t i = 1; i <= VERSIONS; i++) {
			add_text(&output, versions[i % VERSIONS]);
			add_text(&output, i < VERSIONS ? ", " : "\n");
		}
		write_all(2, output.data, output.length);
		return 0;
	}
	if (equal(name, "VERSION"))
		return answer_version();
	command = validate(name);
	deadline = started + command->patience_ms;
	read_stdin(command->patience_ms, true);
	find_version();
	find_socket();
	if (command->descriptors && *netns)
		count = open_pod(netns, fds);
	build_request(command->required & PODNS); /* DEL does not care: the namespace may be long gone */
	ask(command, started, fds, count);
}
