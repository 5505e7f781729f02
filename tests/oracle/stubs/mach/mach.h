/* Two names of Mach's, which metal-cpp passes on. */
#ifndef UMO_ORACLE_MACH_H
#define UMO_ORACLE_MACH_H

typedef int kern_return_t;
typedef unsigned int task_id_token_t;

#endif
