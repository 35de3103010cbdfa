/* What subcommands ask of the files that people name. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

pp_status pp_check_output(const char *output, const char *const *inputs, int input_count,
                          pp_error *error) {
    if (!output) return PP_OK;
    for (int i = 0; i < input_count; i++)
        if (inputs[i] && pp_file_same(output, inputs[i]))
            return pp_fail(error, PP_E_INPUT, output,
                           "would be overwritten, but it is read here: give another name");
    return pp_file_check_output(output, error);
}

pp_status pp_in_document(pp_status status, const char *path, pp_error *error) {
    char place[sizeof error->place];
    if (status == PP_OK || !error || (error->place[0] != '/' && strcmp(error->place, "schedule")))
        return status;
    int length = snprintf(place, sizeof place, "%s %s%s", path, error->place[0] == '/' ? "" : "/",
                          error->place);
    if (length > 0 && (size_t)length < sizeof place) memcpy(error->place, place, sizeof place);
    return status;
}
