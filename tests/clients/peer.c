/* What runs in the containers of test_podman.py, and asks there.
 *
 *   peer serve PORT         tells every TCP client, and every UDP sender, who it is: "ADDRESS PORT\n"
 *   peer ask ADDRESS PORT   prints what the TCP server there says; exit 1 if it says nothing within 3 s
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static void leave(int number)
{
	_exit(0);
}

static int spell(const struct sockaddr_in6 *who, char *text, size_t size)
{
	char address[INET6_ADDRSTRLEN];
	const char *shown = inet_ntop(AF_INET6, &who->sin6_addr, address, sizeof(address));

	if (strncmp(shown, "::ffff:", 7) == 0)
		shown += 7;
	return snprintf(text, size, "%s %d\n", shown, ntohs(who->sin6_port));
}

static int listener(int kind, int port)
{
	struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int sock = socket(AF_INET6, kind, 0), no = 0, yes = 1;

	setsockopt(sock, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no));
	setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(sock, (struct sockaddr *)&here, sizeof(here)) != 0) {
		perror("bind");
		exit(1);
	}
	if (kind == SOCK_STREAM)
		listen(sock, 16);
	return sock;
}

static _Noreturn void serve(int port)
{
	struct pollfd ready[2] = {{listener(SOCK_STREAM, port), POLLIN, 0}, {listener(SOCK_DGRAM, port), POLLIN, 0}};
	struct sockaddr_in6 who;
	char text[80];

	signal(SIGTERM, leave);	/* process 1 has no default */
	signal(SIGPIPE, SIG_IGN);
	for (;;) {
		socklen_t size = sizeof(who);

		poll(ready, 2, -1);
		if (ready[0].revents) {
			int client = accept(ready[0].fd, (struct sockaddr *)&who, &size);

			if (client >= 0) {
				if (write(client, text, spell(&who, text, sizeof(text))) < 0)
					perror("write");
				close(client);
			}
		} else if (recvfrom(ready[1].fd, text, sizeof(text), 0, (struct sockaddr *)&who, &size) >= 0) {
			sendto(ready[1].fd, text, spell(&who, text, sizeof(text)), 0, (struct sockaddr *)&who, size);
		}
	}
}

static int ask(const char *address, int port)
{
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	int is6 = inet_pton(AF_INET6, address, &v6.sin6_addr) == 1;
	int sock = socket(is6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
	struct timeval patience = {3, 0};
	char text[80];
	ssize_t size;

	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	inet_pton(AF_INET, address, &v4.sin_addr);
	if (connect(sock, is6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4, is6 ? sizeof(v6) : sizeof(v4)) != 0) {
		perror("connect");
		return 1;
	}
	size = read(sock, text, sizeof(text));
	if (size <= 0) {
		perror("read");
		return 1;
	}
	fwrite(text, 1, size, stdout);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		serve(atoi(argv[2]));
	if (argc == 4 && strcmp(argv[1], "ask") == 0)
		return ask(argv[2], atoi(argv[3]));
	fputs("usage: peer serve PORT | peer ask ADDRESS PORT\n", stderr);
	return 2;
}
