#include <stdio.h>

#include "services/cli/cli.h"

static void print_overview(void)
{
    printf(
        "Hone takes a trained network (ONNX) and its data and gives back a faster verified one.\n\n"
        "usage: hone COMMAND [ARGUMENT]...\n\ncommands:\n");
    for (int i = 0; cli_commands[i]; i++)
        printf("  %-10s %s\n", cli_commands[i]->name, cli_commands[i]->summary);
    printf("\n'hone COMMAND --help' explains a command. Start here:\n"
           "  hone demo demo && hone optimize demo/model.onnx --data demo/data\n");
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    const struct cli_option options[] = {CLI_OPTIONS_END};
    const char *args[1] = {NULL};
    int code = cli_parse(self, options, argc, argv, 0, 1, args);
    if (code >= 0)
        return code;
    if (!args[0]) {
        print_overview();
        return CLI_OK;
    }
    const struct cli_command *command = cli_find(args[0]);
    if (!command)
        return cli_usage_error(self, "there is no command '%s'", args[0]);
    char *help[] = {(char *)args[0], (char *)"--help", NULL};
    return command->run(command, 2, help);
}

const struct cli_command cmd_help = {
    .name = "help",
    .usage = "[COMMAND]",
    .summary = "what the commands do",
    .examples = "  hone help optimize\n",
    .run = run,
};
