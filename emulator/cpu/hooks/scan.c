/* The instruction sets whose code can be scanned. */
#include "hooks.h"
#include <string.h>

const Scanner *scanner_of(const char *name)
{
    const Scanner *all[] = {&scanner_x86_64, &scanner_aarch64};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i]->name, name))
            return all[i];
    return NULL;
}
