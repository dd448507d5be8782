/* For clients that pause: some calls, then a loop until somebody says enough. */
#include <unistd.h>
struct pair { int left; int right; };
volatile int enough;
volatile long rounds;
struct pair kept;
static int add(int left, int right)
{
    struct pair here = {left, right};
    int sum = here.left + here.right;
    kept = here;
    return sum;
}
int main(void)
{
    alarm(60);
    int total = 0;
    for (int i = 1; i <= 3; i++)
        total = add(total, i);
    while (!enough)
        rounds++;
    return total;
}
