/* Refused at load: two symbols that no bridge stands for. */
#include <stdio.h>
#include <sys/event.h>
#include <unistd.h>

int main(void)
{
    puts("reached");
    return kqueue() + (getlogin() != NULL);
}
