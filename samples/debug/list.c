/* A list with a node that was never linked properly: docs/howto-debug.md finds out where it comes from. */

#include <stdio.h>

struct node {
    int value;
    struct node *next;
};

static struct node nodes[4];

static int sum(const struct node *node)
{
    int total = 0;
    for (; node; node = node->next)
        total += node->value;
    return total;
}

int main(void)
{
    for (int i = 0; i < 4; i++) {
        nodes[i].value = i + 1;
        nodes[i].next = i < 3 ? &nodes[i + 1] : (struct node *)0x5eed000; /* not NULL */
    }
    printf("sum %d\n", sum(nodes));
    return 0;
}
