#pragma once
/* A command of the program `hone` within a test; to be included after cmocka.h. */
#include <stdio.h>
#include <unistd.h>

#include "services/cli/cli.h"

/* The exit code; `printed` gets what went to stdout and stderr. */
static inline int cli_run(const struct cli_command *command, int n, const char *const *words,
                          char *printed, size_t size)
{
    char *argv[24] = {(char *)command->name};
    FILE *file = tmpfile();
    const int out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
    assert_true(n < 23);
    for (int i = 0; i < n; i++)
        argv[i + 1] = (char *)words[i];
    assert_non_null(file);
    fflush(NULL);
    dup2(fileno(file), STDOUT_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    const int code = command->run(command, n + 1, argv);
    fflush(NULL);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    close(out);
    close(err);
    rewind(file);
    printed[fread(printed, 1, size - 1, file)] = 0;
    fclose(file);
    return code;
}
