/* The sandbox's process: holds the namespaces, buries orphans, leaves when told. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int signal)
{
	(void)signal;
	_exit(0);
}

static void bury(int signal)
{
	(void)signal;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

int main(void)
{
	signal(SIGTERM, leave);
	signal(SIGINT, leave);
	signal(SIGCHLD, bury);
	for (;;)
		pause();
}
