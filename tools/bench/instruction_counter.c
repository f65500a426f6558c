/* Counts the arm64 instructions that a program under qemu-aarch64 executes, from mark to mark.

   A mark is the system call getpriority(0x7E57, n), which does nothing else. Each writes one line
   to the file given as out=PATH: n, then since the last mark: all instructions, those of the SIMD
   and floating point unit, and the 8-bit dot products (SDOT, UDOT) among them. The counters are not
   atomic: they are right for programs that compute on one thread. What an instruction costs on a
   real processor is not known here.

   A plugin for QEMU's TCG, API version 1 (QEMU 4.2 to 8). Debian packages no qemu-plugin.h, so what
   is needed of it is declared here.

       gcc -shared -fPIC -O2 -o counter.so instruction_counter.c
       qemu-aarch64 -plugin ./counter.so,out=counts.txt PROGRAM
*/

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define MARK 0x7E57
#define SYS_GETPRIORITY 141

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct qemu_info qemu_info;
enum { ADD_U64 = 0 };

typedef void translated(plugin_id, struct qemu_plugin_tb *);
typedef void called(plugin_id, unsigned cpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t,
                    uint64_t, uint64_t, uint64_t, uint64_t);

extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation,
                                                     void *counter, uint64_t operand);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id, called *);

EXPORT int qemu_plugin_version = 1;

enum { ALL, SIMD, DOT, KINDS };
static uint64_t now[KINDS], last[KINDS];
static FILE *out;

static bool is_simd_or_float(uint32_t word)
{
    return (word & 0x0E000000) == 0x0E000000;
}

static bool is_dot_product(uint32_t word)
{
    bool by_vector = (word & 0x9FE0FC00) == 0x0E809400;
    bool by_element = (word & 0x9FC0F400) == 0x0F80E000;
    return by_vector || by_element;
}

/* A block of instructions was translated: whenever it runs, add what is in it. */
static void on_block(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    uint64_t found[KINDS] = {0};
    size_t count = qemu_plugin_tb_n_insns(block);
    for (size_t i = 0; i < count; i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
        found[ALL]++;
        found[SIMD] += is_simd_or_float(word);
        found[DOT] += is_dot_product(word);
    }
    for (int kind = 0; kind < KINDS; kind++)
        if (found[kind])
            qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &now[kind], found[kind]);
}

static void on_call(plugin_id id, unsigned cpu, int64_t number, uint64_t which, uint64_t mark,
                    uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)cpu, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != SYS_GETPRIORITY || which != MARK)
        return;
    fprintf(out, "%" PRIu64, mark);
    for (int kind = 0; kind < KINDS; kind++) {
        fprintf(out, " %" PRIu64, now[kind] - last[kind]);
        last[kind] = now[kind];
    }
    fputc('\n', out);
    fflush(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const qemu_info *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || !(out = fopen(argv[0] + 4, "w"))) {
        fprintf(stderr, "instruction_counter: needs out=PATH of a file that can be written\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_vcpu_syscall_cb(id, on_call);
    return 0;
}
