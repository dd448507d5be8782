/* Dynamic PIE: floating point through libm, structures, arrays. */
#include <math.h>
#include <stdio.h>
struct point { double x, y; char name[8]; int tags[3]; };
volatile int counter;
double table[8];
struct point origin = {1.5, -2.25, "origin", {1, 2, 3}};
int leaf(int n)
{
    int twice = n * 2;
    counter += twice;
    return twice + 1;
}
double work(int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        table[i % 8] = sin(i) * sqrt(i + 1);
        sum += table[i % 8] + leaf(i);
    }
    return sum;
}
int main(int argc, char **argv)
{
    double r = work(6);
    printf("sum %.6f counter %d\n", r, counter);
    origin.x = r;
    return counter & 63;
}
