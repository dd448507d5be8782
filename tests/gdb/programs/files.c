/* Static PIE: system calls. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
volatile int counter;
char buffer[64];
int leaf(int n)
{
    counter++;
    return n;
}
static int work(void)
{
    int p[2];
    if (pipe(p))
        return 1;
    leaf(write(p[1], "through a pipe", 14));
    leaf(read(p[0], buffer, sizeof buffer));
    leaf(close(p[0]));
    leaf(close(99));
    return leaf(close(p[1]));
}
int main(int argc, char **argv)
{
    int r = work();
    printf("%s %d\n", buffer, counter);
    return r;
}
