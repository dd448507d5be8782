/* Static: signal handlers, setjmp. */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
volatile int counter;
static jmp_buf back;
int leaf(int n)
{
    counter += n;
    return n + 1;
}
static void handler(int number)
{
    leaf(number);
}
static void work(void)
{
    signal(SIGUSR1, handler);
    signal(SIGALRM, handler);
    raise(SIGUSR1);
    kill(getpid(), SIGALRM);
    if (!setjmp(back))
        longjmp(back, 1);
    leaf(100);
}
int main(int argc, char **argv)
{
    leaf(1);
    work();
    printf("counter %d\n", counter);
    return 0;
}
