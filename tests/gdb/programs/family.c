/* Processes and threads: fork, vfork, execve, pthread_create; a thread that sleeps. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int shared = 1;
int joined;

static int square(int x)
{
    return x * x;
}

static void *worker(void *argument)
{
    joined += square(*(int *)argument);
    return 0;
}

static void *sleeper(void *argument)
{
    for (;;)
        pause();
    return argument;
}

int main(int argc, char **argv)
{
    int status, numbers[2] = {3, 4};
    pthread_t threads[3];
    if (argc > 1 && !strcmp(argv[1], "again"))
        return square(6);
    pid_t child = fork();
    if (!child) {
        shared = 2;
        _exit(square(shared) + 1);
    }
    waitpid(child, &status, 0);
    shared = 3;
    printf("child %d\n", WEXITSTATUS(status));
    fflush(stdout);
    child = vfork();
    if (!child) {
        execl(argv[0], argv[0], "again", (char *)0);
        _exit(1);
    }
    waitpid(child, &status, 0);
    printf("program %d\n", WEXITSTATUS(status));
    fflush(stdout);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], 0, worker, &numbers[i]);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], 0);
    pthread_create(&threads[2], 0, sleeper, 0);
    printf("joined %d\n", joined);
    fflush(stdout);
    if (argc > 1)
        for (;;)
            shared++;
    return 0;
}
