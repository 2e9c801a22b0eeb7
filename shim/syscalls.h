/*
 * What the agent may ask of the kernel, one line a call; the rest is refused with EPERM (towpath-launch.c).
 *
 * An agent that starts, takes charge of a node and ends makes 70 different calls of these (strace); the others are
 * what C library, Python and SQLite use instead on other kernels and architectures, for attaching pods, and when
 * something fails. Not here, on purpose: mount, setns, unshare, bpf, ptrace, process_vm_*, keyctl, module and
 * kexec calls, io_uring, userfaultfd, perf_event_open, chroot, pivot_root, mknod, setuid and its kin, time setting,
 * reboot, swapon.
 */
/* files */
ALLOW(read) ALLOW(readv) ALLOW(pread64) ALLOW(preadv) ALLOW(write) ALLOW(writev) ALLOW(pwrite64) ALLOW(pwritev)
ALLOW(openat) ALLOW(close) ALLOW(close_range) ALLOW(lseek) ALLOW(fstat) ALLOW(newfstatat) ALLOW(statx)
ALLOW(statfs) ALLOW(fstatfs) ALLOW(faccessat) ALLOW(faccessat2) ALLOW(readlinkat) ALLOW(getdents64) ALLOW(getcwd)
ALLOW(fcntl) ALLOW(flock) ALLOW(ioctl) ALLOW(dup) ALLOW(dup3) ALLOW(pipe2) ALLOW(fsync) ALLOW(fdatasync)
ALLOW(ftruncate) ALLOW(fallocate) ALLOW(mkdirat) ALLOW(unlinkat) ALLOW(renameat) ALLOW(renameat2)
ALLOW(fchmod) ALLOW(fchmodat) ALLOW(fchown) ALLOW(fchownat) ALLOW(utimensat) ALLOW(umask)
ALLOW(getxattr) ALLOW(lgetxattr) ALLOW(fgetxattr) ALLOW(listxattr) ALLOW(fadvise64) ALLOW(sendfile)
/* memory */
ALLOW(mmap) ALLOW(munmap) ALLOW(mremap) ALLOW(mprotect) ALLOW(madvise) ALLOW(brk) ALLOW(membarrier)
/* sockets; socket itself is in towpath-launch.c, by family */
ALLOW(socketpair) ALLOW(bind) ALLOW(listen) ALLOW(accept) ALLOW(accept4) ALLOW(connect) ALLOW(shutdown)
ALLOW(getsockname) ALLOW(getpeername) ALLOW(setsockopt) ALLOW(getsockopt)
ALLOW(sendto) ALLOW(recvfrom) ALLOW(sendmsg) ALLOW(recvmsg) ALLOW(sendmmsg) ALLOW(recvmmsg)
/* waiting */
ALLOW(ppoll) ALLOW(pselect6) ALLOW(epoll_create1) ALLOW(epoll_ctl) ALLOW(epoll_pwait) ALLOW(epoll_pwait2)
ALLOW(eventfd2) ALLOW(timerfd_create) ALLOW(timerfd_settime) ALLOW(timerfd_gettime) ALLOW(inotify_init1)
ALLOW(inotify_add_watch) ALLOW(inotify_rm_watch) ALLOW(nanosleep) ALLOW(clock_nanosleep) ALLOW(restart_syscall)
ALLOW(futex) ALLOW(set_robust_list) ALLOW(get_robust_list) ALLOW(rseq) ALLOW(sched_yield)
/* time, identity, limits: read only */
ALLOW(clock_gettime) ALLOW(clock_getres) ALLOW(gettimeofday) ALLOW(times) ALLOW(getrandom) ALLOW(uname)
ALLOW(sysinfo) ALLOW(getpid) ALLOW(getppid) ALLOW(gettid) ALLOW(getuid) ALLOW(geteuid) ALLOW(getgid)
ALLOW(getegid) ALLOW(getresuid) ALLOW(getresgid) ALLOW(getgroups) ALLOW(getpgid) ALLOW(getsid) ALLOW(getrusage)
ALLOW(getrlimit) ALLOW(prlimit64) ALLOW(sched_getaffinity) ALLOW(sched_getparam) ALLOW(sched_getscheduler)
ALLOW(getpriority) ALLOW(capget)
/* itself: what it gives up, signals, threads, its end. execve: this launcher's own last step, without gain */
ALLOW(capset) ALLOW(prctl) ALLOW(set_tid_address) ALLOW(execve) ALLOW(exit) ALLOW(exit_group) ALLOW(wait4)
ALLOW(waitid) ALLOW(kill) ALLOW(tgkill) ALLOW(tkill) ALLOW(rt_sigaction) ALLOW(rt_sigprocmask)
ALLOW(rt_sigreturn) ALLOW(rt_sigtimedwait) ALLOW(sigaltstack) ALLOW(pidfd_open) ALLOW(pidfd_send_signal)
/* a client certificate out of a kubeconfig, for OpenSSL, which wants a file */
ALLOW(memfd_create)
#ifdef __x86_64__
ALLOW(open) ALLOW(stat) ALLOW(lstat) ALLOW(access) ALLOW(readlink) ALLOW(mkdir) ALLOW(rmdir) ALLOW(unlink)
ALLOW(rename) ALLOW(chmod) ALLOW(chown) ALLOW(dup2) ALLOW(pipe) ALLOW(poll) ALLOW(select) ALLOW(epoll_wait)
ALLOW(epoll_create) ALLOW(eventfd) ALLOW(time) ALLOW(arch_prctl) ALLOW(getdents) ALLOW(alarm)
#endif
