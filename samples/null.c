/* Writes through a null pointer: mmuemu run samples/null.c */
int main(void) {
    volatile int *volatile pointer = 0;
    *pointer = 42;
    return 0;
}
