/* Whole files in, whole files out.
 *
 * Writing goes through a temporary file in the same directory, fsync, rename, fsync of the
 * directory: under its final name there is the old file or the new one, never a part (promise
 * P6). Every step's error counts, close's too: a full disk may show itself only there. */
#include "core/core.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A call that a signal cut short is made again, unless the program was asked to stop: a pipe whose
 * other end does nothing would hold it for ever. */
static bool again(void) {
    return errno == EINTR && !pp_stop_signal();
}

/* ---- reading ------------------------------------------------------------------------------- */

static pp_status fail_errno(pp_error *error, pp_status code, const char *path, const char *what) {
    int reason = errno;
    if (reason == EINTR) code = PP_E_INTERRUPTED; /* only a stop request ends a call like that */
    pp_fail(error, code, *path ? path : "''", "cannot be %s", what);
    pp_fail_cause(error, strerror(reason));
    return code;
}

static pp_status read_all(int file, const char *path, size_t limit_bytes, pp_text *contents,
                          pp_error *error) {
    char chunk[65536];
    for (;;) {
        ssize_t got = read(file, chunk, sizeof chunk);
        if (got < 0 && again()) continue;
        if (got < 0) return fail_errno(error, PP_E_INPUT, path, "read");
        if (got == 0) break;
        if ((size_t)got > limit_bytes - contents->length)
            return pp_fail(error, PP_E_INPUT, path,
                           "is larger than %zu bytes, the most that is read here", limit_bytes);
        pp_text_append(contents, chunk, (size_t)got);
        if (contents->failed) return pp_fail_memory(error);
    }
    pp_text_append(contents, "", 0); /* an empty file is an empty string, not NULL */
    return contents->failed ? pp_fail_memory(error) : PP_OK;
}

pp_status pp_file_read(const char *path, size_t limit_bytes, pp_text *contents, pp_error *error) {
    *contents = (pp_text){0};
    bool standard = strcmp(path, "-") == 0;
    int file = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return fail_errno(error, PP_E_INPUT, path, "opened");
    pp_status status = read_all(file, path, limit_bytes, contents, error);
    if (!standard) close(file);
    if (status != PP_OK) pp_text_deinit(contents);
    return status;
}

/* ---- writing ------------------------------------------------------------------------------- */

static bool write_all(int file, const char *bytes, size_t length) {
    const pp_platform *os = pp_platform_get();
    while (length > 0) {
        long written = os->write(file, bytes, length);
        if (written < 0 && again()) continue;
        if (written <= 0) return false;
        bytes += written;
        length -= (size_t)written;
        if (length > 0 && pp_stop_signal()) { /* a signal cut the call short */
            errno = EINTR;
            return false;
        }
    }
    return true;
}

/* Opens a new file beside path; its name goes to temporary. Names in use are stepped over. */
static int open_beside(const char *path, char *temporary, size_t capacity) {
    for (int attempt = 0; attempt < 1000; attempt++) {
        int length = snprintf(temporary, capacity, "%s.part-%ld-%d", path, (long)getpid(), attempt);
        if (length < 0 || (size_t)length >= capacity) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int file = pp_platform_get()->open_new(temporary);
        if (file >= 0 || errno != EEXIST) return file;
    }
    return -1;
}

static void directory_of(const char *path, char *directory, size_t capacity) {
    const char *slash = strrchr(path, '/');
    if (!slash)
        snprintf(directory, capacity, ".");
    else
        snprintf(directory, capacity, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* The number of an output that is an open file of this process: replacing /dev/stdout by a new file
 * would destroy it. -1: path is not such a name. */
static int descriptor_of(const char *path) {
    static const struct {
        const char *name;
        int number;
    } names[] = {{"-", 1}, {"/dev/stdout", 1}, {"/dev/stderr", 2}};
    static const char *const folders[] = {"/dev/fd/", "/proc/self/fd/"};
    int64_t number;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(path, names[i].name) == 0) return names[i].number;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        size_t length = strlen(folders[i]);
        if (strncmp(path, folders[i], length) == 0 &&
            pp_parse_int(path + length, 0, INT32_MAX, &number))
            return (int)number;
    }
    return -1;
}

/* What is not a regular file (a pipe, a terminal) cannot be replaced, only written to. */
static bool is_special(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode);
}

/* A reader that left (EPIPE) has what it wanted, and is no error. */
static pp_status write_open(int file, const char *path, const pp_text *contents, pp_error *error) {
    if (file < 0) return fail_errno(error, PP_E_IO, path, "opened");
    bool written = write_all(file, contents->bytes, contents->length) || errno == EPIPE;
    if (!written) fail_errno(error, PP_E_IO, path, "written");
    close(file);
    return written ? PP_OK : PP_E_IO;
}

/* A symbolic link stays one: the file that it leads to is replaced. One that leads nowhere is
 * replaced itself. */
static const char *follow_link(const char *path, char resolved[PATH_MAX]) {
    struct stat info;
    bool link = lstat(path, &info) == 0 && S_ISLNK(info.st_mode);
    return link && realpath(path, resolved) ? resolved : path;
}

static pp_status replace_file(const char *path, const pp_text *contents, pp_error *error) {
    const pp_platform *os = pp_platform_get();
    char temporary[PATH_MAX], directory[PATH_MAX];
    int file = open_beside(path, temporary, sizeof temporary);
    if (file < 0) return fail_errno(error, PP_E_IO, path, "written");
    bool complete = write_all(file, contents->bytes, contents->length) && os->sync(file) == 0;
    int reason = errno;
    bool closed = os->close(file) == 0; /* even after a failure: the descriptor must go */
    if (complete && !closed) reason = errno;
    if (complete && closed && os->rename(temporary, path) == 0) {
        directory_of(path, directory, sizeof directory);
        if (os->sync_directory(directory) == 0) return PP_OK;
        return fail_errno(error, PP_E_IO, path, "made durable");
    }
    if (complete && closed) reason = errno;
    os->unlink(temporary);
    errno = reason;
    return fail_errno(error, PP_E_IO, path, "written");
}

pp_status pp_file_write(const char *path, const pp_text *contents, pp_error *error) {
    char resolved[PATH_MAX];
    if (contents->failed) return pp_fail_memory(error);
    int descriptor = descriptor_of(path);
    if (descriptor >= 0)
        return write_open(fcntl(descriptor, F_DUPFD_CLOEXEC, 0), path, contents, error);
    if (is_special(path))
        return write_open(open(path, O_WRONLY | O_CLOEXEC), path, contents, error);
    return replace_file(follow_link(path, resolved), contents, error);
}

/* ---- asking before the work ---------------------------------------------------------------- */

pp_status pp_file_check_output(const char *path, pp_error *error) {
    char directory[PATH_MAX], resolved[PATH_MAX];
    struct stat info;
    if (*path == '\0') return pp_fail(error, PP_E_INPUT, "''", "is not the name of a file");
    if (descriptor_of(path) >= 0) return PP_OK;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return pp_fail(error, PP_E_INPUT, path, "is a folder; give the name of a file in it");
    if (is_special(path))
        return access(path, W_OK) == 0 ? PP_OK : fail_errno(error, PP_E_INPUT, path, "written");
    directory_of(follow_link(path, resolved), directory, sizeof directory);
    if (stat(directory, &info) != 0 || !S_ISDIR(info.st_mode))
        return pp_fail(error, PP_E_INPUT, path, "cannot be written: there is no folder '%s'",
                       directory);
    return access(directory, W_OK | X_OK) == 0 ? PP_OK
                                               : fail_errno(error, PP_E_INPUT, path, "written");
}

bool pp_file_same(const char *a, const char *b) {
    struct stat left, right;
    return stat(a, &left) == 0 && stat(b, &right) == 0 && left.st_dev == right.st_dev &&
           left.st_ino == right.st_ino && S_ISREG(left.st_mode);
}

uint64_t pp_hash(uint64_t start, const void *bytes, size_t length) {
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < length; i++) start = (start ^ byte[i]) * UINT64_C(1099511628211);
    return start;
}
