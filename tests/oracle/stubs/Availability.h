/* The oldest macOS that the library runs on: metal-cpp asks before it offers MTLCopyAllDevices. */
#ifndef UMO_ORACLE_AVAILABILITY_H
#define UMO_ORACLE_AVAILABILITY_H

#define __MAC_OS_X_VERSION_MIN_REQUIRED 130000

#endif
