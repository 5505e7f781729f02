/* What metal-cpp asks of the target: it is macOS. */
#ifndef UMO_ORACLE_TARGET_CONDITIONALS_H
#define UMO_ORACLE_TARGET_CONDITIONALS_H

#define TARGET_OS_OSX 1

#endif
