/* Every change to files below ROOT, in the order in which the kernel made them: LD_PRELOAD=writes.so.

For each call that changes a file or a folder, or syncs one, a record is appended to the file LOG: five numbers (call,
object, folder, offset, length), then the name or the data. Objects are inodes; who reads the records
(tests/crash/disk.py) gives a number that is used again another object when it is made again. The call and its record are
one step, under a lock on LOG that all processes share, so the order of records is the order of changes. `power_mark`
appends a note of the caller's, such as "this call has returned".

Not seen: stores into shared writable mappings (a record says that one was made), what the C library writes from its
own FILE buffers, system calls that a library makes without the C library (the name under which safetensors writes is
changed so: a sync says what a file is called by then), and programs without this library. The reader finds them, since its last state is then not the disk's.
Programs that are executed get this library, whatever environment they are given.

cc -shared -fPIC -DSELF='"/x/writes.so"' -DLOG='"/x/log"' -DROOT='"/x/root"' writes.c -ldl */

#define _GNU_SOURCE
#include <alloca.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

extern char **environ;

static const char PRELOADED[] = "LD_PRELOAD=" SELF;

enum { MADE = 1, MADE_FOLDER, REMOVED, RENAMED, LINKED, WRITTEN, CUT, SYNCED, DATA_SYNCED, MAPPED, MARKED };

struct record {
    uint64_t call, object, folder, offset, length;
};

static int below_root(const char *path)
{
    return !strncmp(path, ROOT, sizeof ROOT - 1) && (path[sizeof ROOT - 1] == '/' || path[sizeof ROOT - 1] == 0);
}

static int locked(void)
{
    int log = syscall(SYS_openat, AT_FDCWD, LOG, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
    if (log >= 0)
        while (syscall(SYS_flock, log, LOCK_EX) && errno == EINTR)
            ;
    return log; /* -1: in a sandbox that may not open it, and so may not change what we look at */
}

static void unlocked(int log)
{
    if (log >= 0)
        syscall(SYS_close, log);
}

static void put(int log, uint64_t call, uint64_t object, uint64_t folder, uint64_t offset, const void *data,
                uint64_t length)
{
    struct record head = {call, object, folder, offset, length};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)data, length}};
    if (log >= 0)
        syscall(SYS_writev, log, parts, 2);
}

void power_mark(const char *note)
{
    int log = locked();
    put(log, MARKED, 0, 0, 0, note, strlen(note));
    unlocked(log);
}

/* Where a descriptor leads, where that is below ROOT; 0 otherwise. Its path goes to `path`. */
static uint64_t object_and_path(int descriptor, char *path)
{
    char link[64];
    struct stat found;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = syscall(SYS_readlink, link, path, PATH_MAX - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    if (!below_root(path) || fstat(descriptor, &found) || !(S_ISREG(found.st_mode) || S_ISDIR(found.st_mode)))
        return 0;
    return found.st_ino;
}

static uint64_t object_of(int descriptor)
{
    char path[PATH_MAX];
    return object_and_path(descriptor, path);
}

/* The inode of the folder that a name lies in, where that is below ROOT; the name goes to `name`. */
static uint64_t folder_of(int at, const char *path, char *name)
{
    char whole[2 * PATH_MAX], real[PATH_MAX];
    struct stat found;
    if (path[0] == '/')
        snprintf(whole, sizeof whole, "%s", path);
    else if (at == AT_FDCWD)
        snprintf(whole, sizeof whole, "./%s", path);
    else
        snprintf(whole, sizeof whole, "/proc/self/fd/%d/%s", at, path);
    size_t length = strlen(whole);
    while (length > 1 && whole[length - 1] == '/')
        whole[--length] = 0;
    char *last = strrchr(whole, '/');
    if (!last || strlen(last + 1) > NAME_MAX)
        return 0;
    strcpy(name, last + 1);
    if (last == whole)
        last++;
    *last = 0;
    if (!realpath(whole, real) || !below_root(real) || stat(real, &found))
        return 0;
    return found.st_ino;
}

static uint64_t inode_at(int at, const char *path)
{
    struct stat found;
    return fstatat(at, path, &found, AT_SYMLINK_NOFOLLOW) ? 0 : found.st_ino;
}

/* Files that are made, opened and emptied */

static int opened(int at, const char *path, int flags, mode_t mode)
{
    char name[NAME_MAX + 1];
    uint64_t folder = 0, before = 0;
    if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE || !(folder = folder_of(at, path, name)))
        return syscall(SYS_openat, at, path, flags, mode);
    int log = locked();
    before = inode_at(at, path);
    int descriptor = syscall(SYS_openat, at, path, flags, mode), kept = errno;
    if (descriptor >= 0 && !before)
        put(log, MADE, inode_at(at, path), folder, 0, name, strlen(name));
    else if (descriptor >= 0 && flags & O_TRUNC)
        put(log, CUT, before, 0, 0, "", 0);
    unlocked(log);
    errno = kept;
    return descriptor;
}

#define MODE_OF(flags)                                                                                                \
    ({                                                                                                                \
        mode_t given = 0;                                                                                             \
        if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                        \
            va_list rest;                                                                                             \
            va_start(rest, flags);                                                                                    \
            given = va_arg(rest, mode_t);                                                                             \
            va_end(rest);                                                                                             \
        }                                                                                                             \
        given;                                                                                                        \
    })

int open(const char *path, int flags, ...) { return opened(AT_FDCWD, path, flags, MODE_OF(flags)); }
int open64(const char *path, int flags, ...) { return opened(AT_FDCWD, path, flags, MODE_OF(flags)); }
int openat(int at, const char *path, int flags, ...) { return opened(at, path, flags, MODE_OF(flags)); }
int openat64(int at, const char *path, int flags, ...) { return opened(at, path, flags, MODE_OF(flags)); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __openat_2(int at, const char *path, int flags) { return opened(at, path, flags, 0); }
int __openat64_2(int at, const char *path, int flags) { return opened(at, path, flags, 0); }

/* Data */

static void put_written(int log, uint64_t object, uint64_t offset, const struct iovec *parts, int count, ssize_t length)
{
    for (int i = 0; i < count && length > 0; i++) {
        uint64_t here = parts[i].iov_len < (size_t)length ? parts[i].iov_len : (size_t)length;
        put(log, WRITTEN, object, 0, offset, parts[i].iov_base, here);
        offset += here;
        length -= here;
    }
}

static ssize_t written(int descriptor, const struct iovec *parts, int count, off_t offset, int there)
{
    uint64_t object = object_of(descriptor);
    if (!object)
        return there ? syscall(SYS_pwritev, descriptor, parts, count, offset, 0)
                     : syscall(SYS_writev, descriptor, parts, count);
    int log = locked();
    ssize_t length = there ? syscall(SYS_pwritev, descriptor, parts, count, offset, 0)
                           : syscall(SYS_writev, descriptor, parts, count);
    int kept = errno;
    if (length > 0) {
        if (!there)
            offset = syscall(SYS_lseek, descriptor, 0, SEEK_CUR) - length;
        put_written(log, object, offset, parts, count, length);
    }
    unlocked(log);
    errno = kept;
    return length;
}

ssize_t write(int descriptor, const void *data, size_t count)
{
    struct iovec part = {(void *)data, count};
    if (!object_of(descriptor))
        return syscall(SYS_write, descriptor, data, count);
    return written(descriptor, &part, 1, 0, 0);
}

static ssize_t written_at(int descriptor, const void *data, size_t count, off_t offset)
{
    struct iovec part = {(void *)data, count};
    return written(descriptor, &part, 1, offset, 1);
}

ssize_t pwrite(int descriptor, const void *data, size_t count, off_t at) { return written_at(descriptor, data, count, at); }
ssize_t pwrite64(int descriptor, const void *data, size_t count, off64_t at) { return written_at(descriptor, data, count, at); }
ssize_t writev(int descriptor, const struct iovec *parts, int count) { return written(descriptor, parts, count, 0, 0); }
ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t at) { return written(descriptor, parts, count, at, 1); }
ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off64_t at) { return written(descriptor, parts, count, at, 1); }

/* Copies inside the kernel are made outside it, so that their data are seen. */
static ssize_t copied(int target, off64_t *to, int source, off64_t *from, size_t count)
{
    char block[1 << 16];
    size_t wanted = count < sizeof block ? count : sizeof block;
    ssize_t length = from ? syscall(SYS_pread64, source, block, wanted, *from) : syscall(SYS_read, source, block, wanted);
    if (length <= 0)
        return length;
    ssize_t done = to ? written_at(target, block, length, *to) : write(target, block, length);
    if (done < 0)
        return done;
    if (from)
        *from += done;
    else if (done < length)
        syscall(SYS_lseek, source, done - length, SEEK_CUR);
    if (to)
        *to += done;
    return done;
}

ssize_t sendfile(int target, int source, off_t *from, size_t count)
{
    return object_of(target) ? copied(target, NULL, source, from, count)
                             : syscall(SYS_sendfile, target, source, from, count);
}

ssize_t sendfile64(int target, int source, off64_t *from, size_t count) { return sendfile(target, source, from, count); }

ssize_t copy_file_range(int source, off64_t *from, int target, off64_t *to, size_t count, unsigned flags)
{
    return object_of(target) ? copied(target, to, source, from, count)
                             : syscall(SYS_copy_file_range, source, from, target, to, count, flags);
}

static int cut(int descriptor, off_t size)
{
    uint64_t object = object_of(descriptor);
    int log = object ? locked() : -1;
    int status = syscall(SYS_ftruncate, descriptor, size), kept = errno;
    if (status == 0 && object)
        put(log, CUT, object, 0, size, "", 0);
    unlocked(log);
    errno = kept;
    return status;
}

int ftruncate(int descriptor, off_t size) { return cut(descriptor, size); }
int ftruncate64(int descriptor, off64_t size) { return cut(descriptor, size); }

int truncate(const char *path, off_t size)
{
    int descriptor = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (descriptor < 0)
        return -1;
    int status = cut(descriptor, size), kept = errno;
    syscall(SYS_close, descriptor);
    errno = kept;
    return status;
}

int truncate64(const char *path, off64_t size) { return truncate(path, size); }

static int reserved(int descriptor, int mode, off_t offset, off_t length)
{
    struct stat found;
    uint64_t object = object_of(descriptor);
    int log = object ? locked() : -1;
    int status = syscall(SYS_fallocate, descriptor, mode, offset, length), kept = errno;
    if (status == 0 && object && fstat(descriptor, &found) == 0)
        put(log, CUT, object, 0, found.st_size, "", 0);
    unlocked(log);
    errno = kept;
    return status;
}

int fallocate(int descriptor, int mode, off_t offset, off_t length) { return reserved(descriptor, mode, offset, length); }
int fallocate64(int descriptor, int mode, off64_t offset, off64_t length) { return reserved(descriptor, mode, offset, length); }
int posix_fallocate(int descriptor, off_t offset, off_t length) { return reserved(descriptor, 0, offset, length) ? errno : 0; }
int posix_fallocate64(int descriptor, off64_t offset, off64_t length) { return reserved(descriptor, 0, offset, length) ? errno : 0; }

/* With the name of the file, by which the reader finds out where it was renamed unseen. */
static int synced(int descriptor, long call, int kind)
{
    char path[PATH_MAX], name[NAME_MAX + 1] = "";
    uint64_t object = object_and_path(descriptor, path), folder = 0;
    int log = object ? locked() : -1;
    int status = syscall(call, descriptor), kept = errno;
    if (object && inode_at(AT_FDCWD, path) == object)
        folder = folder_of(AT_FDCWD, path, name);
    if (status == 0 && object)
        put(log, kind, object, folder, 0, name, strlen(name));
    unlocked(log);
    errno = kept;
    return status;
}

int fsync(int descriptor) { return synced(descriptor, SYS_fsync, SYNCED); }
int fdatasync(int descriptor) { return synced(descriptor, SYS_fdatasync, DATA_SYNCED); }

static void *mapped(void *address, size_t length, int protection, int flags, int descriptor, off_t offset)
{
    uint64_t object = 0;
    if (descriptor >= 0 && flags & MAP_SHARED && protection & PROT_WRITE && (object = object_of(descriptor))) {
        int log = locked();
        put(log, MAPPED, object, 0, offset, "", 0);
        unlocked(log);
    }
    return (void *)syscall(SYS_mmap, address, length, protection, flags, descriptor, offset);
}

void *mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t offset) { return mapped(address, length, protection, flags, descriptor, offset); }
void *mmap64(void *address, size_t length, int protection, int flags, int descriptor, off64_t offset) { return mapped(address, length, protection, flags, descriptor, offset); }

/* Names */

static int made_folder(int at, const char *path, mode_t mode)
{
    char name[NAME_MAX + 1];
    uint64_t folder = folder_of(at, path, name);
    int log = folder ? locked() : -1;
    int status = syscall(SYS_mkdirat, at, path, mode), kept = errno;
    if (status == 0 && folder)
        put(log, MADE_FOLDER, inode_at(at, path), folder, 0, name, strlen(name));
    unlocked(log);
    errno = kept;
    return status;
}

int mkdir(const char *path, mode_t mode) { return made_folder(AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return made_folder(at, path, mode); }

static int removed(int at, const char *path, int flags)
{
    char name[NAME_MAX + 1];
    uint64_t folder = folder_of(at, path, name);
    int log = folder ? locked() : -1;
    uint64_t object = folder ? inode_at(at, path) : 0;
    int status = syscall(SYS_unlinkat, at, path, flags), kept = errno;
    if (status == 0 && folder)
        put(log, REMOVED, object, folder, 0, name, strlen(name));
    unlocked(log);
    errno = kept;
    return status;
}

int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int at, const char *path, int flags) { return removed(at, path, flags); }
int remove(const char *path)
{
    int status = removed(AT_FDCWD, path, 0);
    return status && errno == EISDIR ? removed(AT_FDCWD, path, AT_REMOVEDIR) : status;
}

/* `offset`: the other folder; the data: both names, with a zero byte between them. */
static int renamed(int at, const char *path, int to, const char *target, unsigned flags)
{
    char names[2 * NAME_MAX + 3] = "", name[NAME_MAX + 1] = "";
    uint64_t from = folder_of(at, path, names), folder = folder_of(to, target, name);
    if (!from && !folder)
        return syscall(SYS_renameat2, at, path, to, target, flags);
    int log = locked();
    uint64_t object = inode_at(at, path);
    int status = syscall(SYS_renameat2, at, path, to, target, flags), kept = errno;
    size_t length = strlen(names) + 1;
    strcpy(names + length, name);
    if (status == 0)
        put(log, RENAMED, object, folder, from, names, length + strlen(name));
    unlocked(log);
    errno = kept;
    return status;
}

int rename(const char *path, const char *target) { return renamed(AT_FDCWD, path, AT_FDCWD, target, 0); }
int renameat(int at, const char *path, int to, const char *target) { return renamed(at, path, to, target, 0); }
int renameat2(int at, const char *path, int to, const char *target, unsigned flags) { return renamed(at, path, to, target, flags); }

static int linked(int at, const char *path, int to, const char *target, int flags)
{
    char name[NAME_MAX + 1];
    uint64_t folder = folder_of(to, target, name);
    int log = folder ? locked() : -1;
    int status = syscall(SYS_linkat, at, path, to, target, flags), kept = errno;
    if (status == 0 && folder)
        put(log, LINKED, inode_at(to, target), folder, 0, name, strlen(name));
    unlocked(log);
    errno = kept;
    return status;
}

int link(const char *path, const char *target) { return linked(AT_FDCWD, path, AT_FDCWD, target, 0); }
int linkat(int at, const char *path, int to, const char *target, int flags) { return linked(at, path, to, target, flags); }

/* Programs. What one is given: its environment, with this library; on the stack, for it may be called in a vfork. */
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
