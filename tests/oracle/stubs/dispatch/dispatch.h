/* Two names of libdispatch: metal-cpp passes them on and looks at neither. */
#ifndef UMO_ORACLE_DISPATCH_H
#define UMO_ORACLE_DISPATCH_H

typedef struct dispatch_queue_s *dispatch_queue_t;
typedef struct dispatch_data_s *dispatch_data_t;

#endif
