/* Names of twins: one source, one symbol per instruction set.
 *
 * Every file of this folder except the plain ones (isa.cmake) is compiled once per instruction set
 * with MEED_ISA defined as avx512, avx2 or generic. MEED_TWIN(rmsnorm_fwd) is then
 * meed_cpu_rmsnorm_fwd_avx512 and so on; cpu_backend.c fills one table per suffix from ops.def and
 * picks a table at start, so no call is dispatched more than once and a twin that is missing for
 * one instruction set does not link. Twins that are not ops (panel.h) use the same macro, which
 * keeps a translation unit from ever calling code of another instruction set.
 */
#ifndef MEED_CPU_ISA_H
#define MEED_CPU_ISA_H

#include "kernels/backend.h"

#ifndef MEED_ISA
#define MEED_ISA generic
#endif
#define MEED_TWIN_PASTE(name, isa) meed_cpu_##name##_##isa
#define MEED_TWIN_EXPAND(name, isa) MEED_TWIN_PASTE(name, isa)
#define MEED_TWIN(name) MEED_TWIN_EXPAND(name, MEED_ISA)

#define MEED_OP(name, text) meed_op_##name##_fn MEED_TWIN(name);
#include "kernels/ops.def"
#undef MEED_OP

#endif
