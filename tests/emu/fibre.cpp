/* Fibres: a stack, a saved stack pointer, and what the sanitizers must know of both.
 *
 * The switch is seven instructions, since ucontext saves the signal mask by a system call each time
 * and is fifteen times slower; it remains for processors other than x86-64. Stacks are mapped
 * without reserve, with a page below that faults. Exceptions do not cross a switch, and kernels
 * throw none.
 *
 * Fibres belong to the OS thread that launches: when another one comes (never at the same time),
 * all begin anew there, because compilers keep addresses of thread-local variables across a switch.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "tests/emu/emu_engine.h"

#if !defined(__x86_64__) && !defined(MEED_EMU_UCONTEXT)
#define MEED_EMU_UCONTEXT 1
#endif
#ifdef MEED_EMU_UCONTEXT
#include <ucontext.h>
#endif

static constexpr size_t STACK_BYTES = (MEED_EMU_CHECKER ? 512 : 128) << 10;
static constexpr size_t GUARD_BYTES = 64 << 10;
/* Above the first frame; a multiple of 16, and 8. */
static constexpr size_t STACK_HEAD = 72;

struct emu_fibre {
    void *sp;
    char *stack;
    size_t stack_bytes;
    void *fake_stack; /* ASan's */
    void *tsan;
#ifdef MEED_EMU_UCONTEXT
    ucontext_t context;
#endif
};
static struct emu_fibre fibres[EMU_FIBRES_MAX];
static struct emu_fibre host;
static int made;
static int now = EMU_HOST;
static pthread_t owner;

static struct emu_fibre *fibre_at(int index)
{
    return index == EMU_HOST ? &host : &fibres[index];
}

int emu_fibre_now(void)
{
    return now;
}

static void fibre_enter(void)
{
#if MEED_EMU_CHECKER == 1
    __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
    emu_fibre_main(now);
    abort();
}

#ifdef MEED_EMU_UCONTEXT

static void context_make(struct emu_fibre *fibre)
{
    if (getcontext(&fibre->context) != 0) {
        abort();
    }
    fibre->context.uc_stack.ss_sp = fibre->stack;
    fibre->context.uc_stack.ss_size = fibre->stack_bytes;
    fibre->context.uc_link = NULL;
    makecontext(&fibre->context, fibre_enter, 0);
}
static void context_switch(struct emu_fibre *from, struct emu_fibre *to)
{
    if (swapcontext(&from->context, &to->context) != 0) {
        abort();
    }
}

#else

extern "C" void meed_emu_switch(void **from, void *to);
asm(".text\n"
    ".globl meed_emu_switch\n"
    ".type meed_emu_switch, @function\n"
    "meed_emu_switch:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size meed_emu_switch, .-meed_emu_switch\n");

/* The first switch pops six zeros and returns into fibre_enter, whose own return address is zero
 * and leaves the stack as a call would: 8 past a multiple of 16. */
static void context_make(struct emu_fibre *fibre)
{
    enum { SAVED = 6 };
    uintptr_t *top = (uintptr_t *)(fibre->stack + fibre->stack_bytes - STACK_HEAD);
    top[0] = 0;
    top[-1] = (uintptr_t)fibre_enter;
    for (int i = 0; i < SAVED; i++) {
        top[-2 - i] = 0;
    }
    fibre->sp = top - 1 - SAVED;
}
static void context_switch(struct emu_fibre *from, struct emu_fibre *to)
{
    meed_emu_switch(&from->sp, to->sp);
}

#endif

void emu_fibre_switch(int to)
{
    struct emu_fibre *from = fibre_at(now);
    struct emu_fibre *target = fibre_at(to);
    now = to;
#if MEED_EMU_CHECKER == 2
    __tsan_switch_to_fiber(target->tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if MEED_EMU_CHECKER == 1
    __sanitizer_start_switch_fiber(&from->fake_stack, target->stack, target->stack_bytes);
#endif
    context_switch(from, target);
#if MEED_EMU_CHECKER == 1
    __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#endif
}

static void stack_map(struct emu_fibre *fibre)
{
    char *base = (char *)mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED || mprotect(base, GUARD_BYTES, PROT_NONE) != 0) {
        perror("emulator: cannot map a stack");
        abort();
    }
    fibre->stack = base + GUARD_BYTES;
    fibre->stack_bytes = STACK_BYTES;
}

static void host_find(void)
{
    owner = pthread_self();
#if MEED_EMU_CHECKER == 1
    pthread_attr_t attributes;
    void *stack = NULL;
    if (pthread_getattr_np(owner, &attributes) != 0 ||
        pthread_attr_getstack(&attributes, &stack, &host.stack_bytes) != 0) {
        abort();
    }
    host.stack = (char *)stack;
    pthread_attr_destroy(&attributes);
#endif
#if MEED_EMU_CHECKER == 2
    host.tsan = __tsan_get_current_fiber();
#endif
}

void emu_fibres_reserve(int count)
{
    bool moved = made > 0 && !pthread_equal(owner, pthread_self());
    host_find();
    if (moved) {
        emu_fibres_reset();
    }
    for (; made < count; made++) {
        stack_map(&fibres[made]);
        context_make(&fibres[made]);
#if MEED_EMU_CHECKER == 2
        fibres[made].tsan = __tsan_create_fiber(0);
#endif
    }
}

/* Left frames never undo what they told a sanitizer: ASan's poison is wiped, and under TSan the
 * dead fibre's past is ordered before the host's next step. Otherwise the next, correct, launch
 * would be reported. */
void emu_fibres_reset(void)
{
    for (int i = 0; i < made; i++) {
#if MEED_EMU_CHECKER == 1
        __asan_unpoison_memory_region(fibres[i].stack, fibres[i].stack_bytes);
        fibres[i].fake_stack = NULL;
#endif
#if MEED_EMU_CHECKER == 2
        __tsan_switch_to_fiber(fibres[i].tsan, 0);
        __tsan_switch_to_fiber(host.tsan, 0);
        __tsan_destroy_fiber(fibres[i].tsan);
        fibres[i].tsan = __tsan_create_fiber(0);
#endif
        context_make(&fibres[i]);
    }
}
