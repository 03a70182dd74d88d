/* The wall clock of a process, so many seconds from the real one as a file says, which CLOCK_FILE
   names. It is loaded before libc. Without headers and libraries, so that a compiler is all it takes. */

struct timespec { long seconds, nanoseconds; };
struct timeval { long seconds, microseconds; };
long syscall(long number, ...);
char *getenv(const char *name);
int open(const char *path, int flags, ...);
int close(int file);
void *mmap(void *at, unsigned long size, int protection, int flags, int file, long offset);

static volatile long *added;
static volatile int has_begun;

static void begin(void) {
    char *path = getenv("CLOCK_FILE");
    int file = path ? open(path, 0) : -1;
    if (file >= 0) {
        void *found = mmap(0, 8, 1, 1, file, 0);
        if (found != (void *)-1) added = found;
        close(file);
    }
    has_begun = 1;
}
int clock_gettime(int clock, struct timespec *at) {
    int failed = syscall(CLOCK_GETTIME, clock, at);
    if (!has_begun) begin();
    if (!failed && added && clock == 0) at->seconds += *added;
    return failed;
}
int gettimeofday(struct timeval *at, void *zone) {
    struct timespec found;
    clock_gettime(0, &found);
    at->seconds = found.seconds;
    at->microseconds = found.nanoseconds / 1000;
    return 0;
}
long time(long *at) {
    struct timespec found;
    clock_gettime(0, &found);
    if (at) *at = found.seconds;
    return found.seconds;
}
