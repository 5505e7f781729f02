/* The name of a surface, which metal-cpp passes on. */
#ifndef UMO_ORACLE_IO_SURFACE_REF_H
#define UMO_ORACLE_IO_SURFACE_REF_H

typedef struct __IOSurface *IOSurfaceRef;

#endif
