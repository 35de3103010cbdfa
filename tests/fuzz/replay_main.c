/* Runs a fuzz target over every file of the folders given: the corpus as a regression test. */
#include "fuzz_support.h"

#include <dirent.h>

static int replay_file(const char *path) {
    pp_text text;
    pp_error error = {0};
    if (pp_file_read(path, PP_FILE_LIMIT_BYTES, &text, &error) != PP_OK) {
        fprintf(stderr, "%s: %s\n", path, error.message);
        return 1;
    }
    LLVMFuzzerTestOneInput((const uint8_t *)text.bytes, text.length);
    pp_text_deinit(&text);
    if (pp_live_bytes() == 0) return 0;
    fprintf(stderr, "%s: %lld bytes leaked\n", path, (long long)pp_live_bytes());
    return 1;
}

static int replay_folder(const char *folder, int *files) {
    DIR *directory = opendir(folder);
    int failures = 0;
    if (!directory) {
        perror(folder);
        return 1;
    }
    for (struct dirent *entry; (entry = readdir(directory));) {
        char path[4096];
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        failures += replay_file(path);
        ++*files;
    }
    closedir(directory);
    return failures;
}

int main(int count, char **arguments) {
    int failures = 0, files = 0;
    for (int i = 1; i < count; i++) failures += replay_folder(arguments[i], &files);
    printf("%d files, %d failures\n", files, failures);
    return failures > 0 || files == 0;
}
