/*
 * Stands in a plugin's place: runs .real/NAME beside itself and notes how long that took, in nanoseconds, as
 * one line "COMMAND NAME CONTAINER NS" of /run/cni-times. Exit code and standard streams are the plugin's.
 */
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	char self[256], folder[256], path[600], line[512];
	const char *command = getenv("CNI_COMMAND"), *container = getenv("CNI_CONTAINERID");
	int status, size, fd;
	long long begun;
	pid_t pid;

	(void)argc;
	snprintf(self, sizeof self, "%s", argv[0]);
	snprintf(folder, sizeof folder, "%s", argv[0]);
	snprintf(path, sizeof path, "%s/.real/%s", dirname(folder), basename(self));
	begun = now();
	pid = fork();
	if (pid == 0) {
		execv(path, argv);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 127;
	size = snprintf(line, sizeof line, "%s %s %s %lld\n", command ? command : "-", basename(self),
			container ? container : "-", now() - begun);
	fd = open("/run/cni-times", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, line, (size_t)size) != size)
		return 127;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 127;
}
