/* Three threads; one dies, the others wait. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
__thread int mine = 42;
static char *mapping;
static int ready;
static void *waits(void *number)
{
    mine = (int)(long)number;
    __atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
    for (;;)
        pause();
    return 0;
}
/* Have all threads but this one gone to sleep?  What they wait in is in the core file. */
static int others_sleep(void)
{
    DIR *d = opendir("/proc/self/task");
    struct dirent *e;
    int awake = 0;
    while ((e = readdir(d))) {
        char path[300], text[400], *state;
        if (e->d_name[0] == '.' || atoi(e->d_name) == getpid())
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", e->d_name);
        int fd = open(path, O_RDONLY), n = read(fd, text, sizeof text - 1);
        close(fd);
        text[n > 0 ? n : 0] = 0;
        state = strrchr(text, ')');
        awake += !state || state[2] != 'S';
    }
    closedir(d);
    return !awake;
}

int crash(int depth, double x)
{
    volatile int here = depth;
    if (!depth)
        *(volatile int *)0x18 = 1;
    return crash(depth - 1, x * 1.5) + here;
}
int main(void)
{
    struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    pthread_t t;
    setrlimit(RLIMIT_CORE, &all);
    mapping = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(mapping + 0x5000, "in a mapping");
    for (long i = 0; i < 2; i++)
        pthread_create(&t, 0, waits, (void *)(100 + i));
    while (__atomic_load_n(&ready, __ATOMIC_SEQ_CST) < 2 || !others_sleep())
        usleep(1000);
    return crash(3, 2.5);
}
