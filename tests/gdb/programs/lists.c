/* Dynamic, not PIE: the heap, recursion, a callback from libc (so a backtrace has libc frames in the middle). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct node { int value; struct node *next; };
volatile int counter;
static struct node *head;
int leaf(int n)
{
    counter += n;
    return n % 3;
}
static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b + 0 * leaf(1);
}
int depth(struct node *n)
{
    return n ? 1 + depth(n->next) : leaf(5);
}
int work(int n)
{
    int values[] = {5, 3, 9, 1};
    qsort(values, 4, sizeof *values, compare);
    for (int i = 0; i < n; i++) {
        struct node *one = malloc(sizeof *one);
        one->value = values[i % 4];
        one->next = head;
        head = one;
    }
    return depth(head);
}
int main(int argc, char **argv)
{
    int r = work(4);
    char *text = strdup("heap text");
    printf("depth %d %s counter %d\n", r, text, counter);
    free(text);
    return r;
}
