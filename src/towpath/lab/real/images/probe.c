/*
 * A workload in one static file: "probe serve PORT..." answers HTTP on every port and family with its host name
 * and the caller's address, and on a port written 53/udp every datagram with the same; "probe get ADDRESS PORT [SECONDS]" prints such an answer; "probe wait" does nothing.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { MAX_PORTS = 8, REQUEST = 2048 };

static void leave(int signal)
{
	(void)signal;
	_exit(0);
}

static int listener(int port, bool datagrams)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	int fd = socket(AF_INET6, datagrams ? SOCK_DGRAM : SOCK_STREAM, 0), on = 1, off = 0;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)) != 0 || (!datagrams && listen(fd, 128) != 0)) {
		perror("listen");
		exit(1);
	}
	return fd;
}

static void introduce(char *body, size_t size, const struct sockaddr_in6 *peer)
{
	char from[INET6_ADDRSTRLEN], name[256] = "";

	inet_ntop(AF_INET6, &peer->sin6_addr, from, sizeof(from));
	gethostname(name, sizeof(name) - 1);
	snprintf(body, size, "%s %s\n", name,
		 IN6_IS_ADDR_V4MAPPED(&peer->sin6_addr) ? from + strlen("::ffff:") : from);
}

static void answer_datagram(int fd)
{
	struct sockaddr_in6 peer;
	socklen_t length = sizeof(peer);
	char request[REQUEST], body[512];

	if (recvfrom(fd, request, sizeof(request), 0, (struct sockaddr *)&peer, &length) < 0)
		return;
	introduce(body, sizeof(body), &peer);
	if (sendto(fd, body, strlen(body), 0, (struct sockaddr *)&peer, length) < 0)
		perror("sendto");
}

static void answer(int listening)
{
	struct sockaddr_in6 peer;
	socklen_t length = sizeof(peer);
	struct timeval patience = { .tv_sec = 2 };
	char request[REQUEST], body[512], reply[1024];
	int fd = accept(listening, (struct sockaddr *)&peer, &length);

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (read(fd, request, sizeof(request)) > 0) {
		introduce(body, sizeof(body), &peer);
		int n = snprintf(reply, sizeof(reply), "HTTP/1.0 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
		if (write(fd, reply, (size_t)n) < 0)
			perror("write");
	}
	close(fd);
}

static _Noreturn void serve(int count, char **ports)
{
	struct pollfd fds[MAX_PORTS];
	bool datagrams[MAX_PORTS];

	if (count > MAX_PORTS)
		count = MAX_PORTS;
	for (int i = 0; i < count; i++) {
		datagrams[i] = strstr(ports[i], "/udp") != NULL;
		fds[i] = (struct pollfd){ .fd = listener(atoi(ports[i]), datagrams[i]), .events = POLLIN };
	}
	for (;;) {
		poll(fds, (nfds_t)count, -1);
		for (int i = 0; i < count; i++)
			if (fds[i].revents & POLLIN)
				(datagrams[i] ? answer_datagram : answer)(fds[i].fd);
	}
}

static int get(const char *address, const char *port, int seconds)
{
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = four.sin_port };
	bool is4 = inet_pton(AF_INET, address, &four.sin_addr) == 1;
	const char request[] = "GET / HTTP/1.0\r\n\r\n", *body;
	char reply[4096] = "";
	size_t length = 0;
	ssize_t n;

	alarm((unsigned)seconds);
	if (!is4 && inet_pton(AF_INET6, address, &six.sin6_addr) != 1)
		return 2;
	int fd = socket(is4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
	if (is4 ? connect(fd, (struct sockaddr *)&four, sizeof(four)) : connect(fd, (struct sockaddr *)&six, sizeof(six))) {
		perror("connect");
		return 1;
	}
	if (write(fd, request, sizeof(request) - 1) < 0)
		return 1;
	while (length < sizeof(reply) - 1 && (n = read(fd, reply + length, sizeof(reply) - 1 - length)) > 0)
		length += (size_t)n;
	body = strstr(reply, "\r\n\r\n");
	if (body == NULL)
		return 1;
	fputs(body + 4, stdout);
	return 0;
}

int main(int argc, char **argv)
{
	signal(SIGTERM, leave);
	if (argc > 2 && strcmp(argv[1], "serve") == 0)
		serve(argc - 2, argv + 2);
	if (argc > 3 && strcmp(argv[1], "get") == 0)
		return get(argv[2], argv[3], argc > 4 ? atoi(argv[4]) : 2);
	for (;;)
		pause();
}
