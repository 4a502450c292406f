/* A slow disk under a tree of processes, and who of them forks: LD_PRELOAD=conditions.so.

Each fsync and fdatasync of a file or folder takes LEAST to MOST milliseconds longer, and each write into a file as long
as a disk of RATE bytes a second takes. Where LEAST to MOST is not 0, a line for each sync goes into the file SYNCS once
it has returned: when it began and ended (seconds since the epoch), device, inode, and the size when it began. What lies
below that size is on the disk from that moment on. A line for each fork goes into FORKS: how many threads the process
has, and its command. Programs that are executed get this library, whatever environment they are given.

cc -shared -fPIC -DSELF='"/x/conditions.so"' -DSYNCS='"/x/syncs"' -DFORKS='"/x/forks"' -DLEAST=300 -DMOST=2000
   -DRATE=4000000 conditions.c */

#define _GNU_SOURCE
#include <alloca.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static const char PRELOADED[] = "LD_PRELOAD=" SELF;

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void wait_for(double seconds)
{
    struct timespec left = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left) && errno == EINTR)
        ;
}

static void note(const char *file, const char *line)
{
    int trace = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (trace < 0)
        return; /* in a sandbox */
    syscall(SYS_write, trace, line, strlen(line));
    close(trace);
}

static int on_disk(int descriptor, struct stat *found)
{
    return fstat(descriptor, found) == 0 && (S_ISREG(found->st_mode) || S_ISDIR(found->st_mode));
}

static int synced(int descriptor, long call)
{
    struct stat found;
    int kept, status;
    double began = now();
    if (MOST == 0 || !on_disk(descriptor, &found))
        return syscall(call, descriptor);
    status = syscall(call, descriptor);
    kept = errno;
    /* drawn by the moment and the file: the same in no two processes */
    unsigned drawn = (unsigned)(began * 1e6) * 2654435761u ^ (unsigned)found.st_ino * 40503u ^ (unsigned)getpid();
    wait_for((LEAST + drawn % (MOST - LEAST + 1)) / 1000.0);
    char line[160];
    snprintf(line, sizeof line, "%.6f %.6f %lu %lu %lld\n", began, now(), (unsigned long)found.st_dev,
             (unsigned long)found.st_ino, (long long)found.st_size);
    note(SYNCS, line);
    errno = kept;
    return status;
}

int fsync(int descriptor)
{
    return synced(descriptor, SYS_fsync);
}

int fdatasync(int descriptor)
{
    return synced(descriptor, SYS_fdatasync);
}

static ssize_t written(int descriptor, ssize_t count)
{
    struct stat found;
    int kept = errno;
    if (RATE && count > 0 && fstat(descriptor, &found) == 0 && S_ISREG(found.st_mode))
        wait_for(count / (RATE + 1e-9));
    errno = kept;
    return count;
}

ssize_t write(int descriptor, const void *data, size_t count)
{
    return written(descriptor, syscall(SYS_write, descriptor, data, count));
}

ssize_t pwrite(int descriptor, const void *data, size_t count, off_t offset)
{
    return written(descriptor, syscall(SYS_pwrite64, descriptor, data, count, offset));
}

ssize_t pwrite64(int descriptor, const void *data, size_t count, off64_t offset)
{
    return written(descriptor, syscall(SYS_pwrite64, descriptor, data, count, offset));
}

pid_t fork(void)
{
    static pid_t (*real)(void);
    char line[400] = "", shown[300] = "";
    int threads = 0, command = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    DIR *tasks = opendir("/proc/self/task");
    if (!real)
        real = dlsym(RTLD_NEXT, "fork");
    if (tasks) {
        for (struct dirent *each; (each = readdir(tasks));)
            threads += each->d_name[0] != '.';
        closedir(tasks);
    }
    if (command >= 0) {
        for (ssize_t length = syscall(SYS_read, command, shown, sizeof shown - 1); length-- > 0;)
            if (shown[length] < '!')
                shown[length] = ' ';
        close(command);
    }
    snprintf(line, sizeof line, "%d %s\n", threads, shown);
    note(FORKS, line);
    return real();
}

/* What a program is given: its environment, with this library. On the stack, for it may be called in a vfork. */
#define WITH_THIS(given)                                                                                              \
    ({                                                                                                                \
        size_t count = 0, kept = 0;                                                                                   \
        while ((given)[count])                                                                                        \
            count++;                                                                                                  \
        char **all = alloca((count + 2) * sizeof *all);                                                               \
        for (size_t i = 0; i < count; i++)                                                                            \
            if (strncmp((given)[i], "LD_PRELOAD=", 11))                                                               \
                all[kept++] = (given)[i];                                                                             \
        all[kept++] = (char *)PRELOADED;                                                                              \
        all[kept] = NULL;                                                                                             \
        all;                                                                                                          \
    })

int execve(const char *path, char *const arguments[], char *const environment[])
{
    char **all = WITH_THIS(environment);
    return syscall(SYS_execve, path, arguments, all);
}

int execv(const char *path, char *const arguments[])
{
    char **all = WITH_THIS(environ);
    return syscall(SYS_execve, path, arguments, all);
}

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *how,
                char *const arguments[], char *const environment[])
{
    int (*real)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, char *const[],
                char *const[]) = dlsym(RTLD_NEXT, "posix_spawn");
    char **all = WITH_THIS(environment);
    return real(pid, path, actions, how, arguments, all);
}
