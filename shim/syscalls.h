/*
 * What the agent may ask of the kernel; the rest is refused with EPERM (towpath-launch.c). Made by
 * python -m towpath.image.seccomp from image/syscalls-recorded.json, what agents were seen to call, and
 * image/syscalls.toml, what else is let through and why.
 */
ALLOW(accept4) ALLOW(bind) ALLOW(brk) ALLOW(capset) ALLOW(clock_getres) ALLOW(clock_gettime)
ALLOW(clock_nanosleep) ALLOW(close) ALLOW(connect) ALLOW(dup) ALLOW(dup3) ALLOW(epoll_create1)
ALLOW(epoll_ctl) ALLOW(epoll_pwait) ALLOW(execve) ALLOW(exit) ALLOW(exit_group) ALLOW(faccessat) ALLOW(fchmod)
ALLOW(fchmodat) ALLOW(fcntl) ALLOW(fdatasync) ALLOW(flock) ALLOW(fsync) ALLOW(ftruncate) ALLOW(futex)
ALLOW(getcwd) ALLOW(getdents64) ALLOW(getegid) ALLOW(geteuid) ALLOW(getgid) ALLOW(getpeername) ALLOW(getpid)
ALLOW(getppid) ALLOW(getrandom) ALLOW(getsockname) ALLOW(getsockopt) ALLOW(gettid) ALLOW(gettimeofday)
ALLOW(getuid) ALLOW(inotify_add_watch) ALLOW(inotify_init1) ALLOW(inotify_rm_watch) ALLOW(ioctl) ALLOW(listen)
ALLOW(lseek) ALLOW(madvise) ALLOW(memfd_create) ALLOW(mkdirat) ALLOW(mmap) ALLOW(mprotect) ALLOW(mremap)
ALLOW(munmap) ALLOW(newfstatat) ALLOW(openat) ALLOW(ppoll) ALLOW(prctl) ALLOW(pread64) ALLOW(prlimit64)
ALLOW(pselect6) ALLOW(pwrite64) ALLOW(read) ALLOW(readlinkat) ALLOW(recvfrom) ALLOW(recvmsg) ALLOW(renameat)
ALLOW(restart_syscall) ALLOW(rseq) ALLOW(rt_sigaction) ALLOW(rt_sigprocmask) ALLOW(rt_sigreturn)
ALLOW(sched_getaffinity) ALLOW(sched_yield) ALLOW(sendmmsg) ALLOW(sendmsg) ALLOW(sendto)
ALLOW(set_robust_list) ALLOW(set_tid_address) ALLOW(setsockopt) ALLOW(shutdown) ALLOW(sigaltstack)
ALLOW(socketpair) ALLOW(statfs) ALLOW(sysinfo) ALLOW(tgkill) ALLOW(uname) ALLOW(unlinkat) ALLOW(write)
#ifdef __x86_64__
ALLOW(access) ALLOW(arch_prctl) ALLOW(chmod) ALLOW(dup2) ALLOW(epoll_wait) ALLOW(mkdir) ALLOW(poll)
ALLOW(readlink) ALLOW(rename) ALLOW(rmdir) ALLOW(time) ALLOW(unlink)
#endif
