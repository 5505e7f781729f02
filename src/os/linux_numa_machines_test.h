/*
 * Machines as their kernels describe them in /sys and /proc: a line is a file, "path: text", or a
 * folder, "path/". What hwloc reads besides is derived from these by machine_write().
 */
#ifndef UMO_OS_LINUX_NUMA_MACHINES_TEST_H
#define UMO_OS_LINUX_NUMA_MACHINES_TEST_H

#define NODE "sys/devices/system/node/"
#define CPUS "sys/devices/system/cpu/online: "
#define STATUS "proc/self/status: Name:\\tx\\nMems_allowed:\\t0\\nMems_allowed_list:\\t"
#define KB(node, size) NODE "node" #node "/meminfo: Node " #node " MemTotal:    " #size " kB\\n\n"

typedef struct machine {
    const char *name;
    const char *text;
} machine;

static const machine machines[] = {
    {"one node", NODE "online: 0\\n\n" CPUS "0-3\\n\n" KB(0, 24684084) NODE
     "node0/cpulist: 0-3\\n\n" NODE "node0/distance: 10\\n\n" STATUS "0\\n\n"},
    {"two nodes", NODE "online: 0-1\\n\n" CPUS "0-1\\n\n" KB(0, 492116) KB(1, 503016) NODE
     "node0/cpulist: 0\\n\n" NODE "node1/cpulist: 1\\n\n" NODE "node0/distance: 10 31\\n\n" NODE
     "node1/distance: 31 10\\n\n" STATUS "0-1\\n\n"},
    /* q35 with hmat=on: the third is memory of a device, next to node 1. */
    {"hmat", NODE "online: 0-2\\n\n" CPUS "0-1\\n\n" KB(0, 492116) KB(1, 503016) KB(2, 262144) NODE
     "node0/cpulist: 0\\n\n" NODE "node1/cpulist: 1\\n\n" NODE "node2/cpulist: \\n\n" NODE
     "node0/distance: 10 31 21\\n\n" NODE "node1/distance: 31 10 41\\n\n" NODE
     "node2/distance: 21 41 10\\n\n" NODE "node0/access0/initiators/node0/\n" NODE
     "node0/access0/initiators/read_latency: 5\\n\n" NODE
     "node0/access0/initiators/write_latency: 6\\n\n" NODE
     "node0/access0/initiators/read_bandwidth: 20000\\n\n" NODE
     "node0/access0/initiators/write_bandwidth: 19000\\n\n" NODE
     "node1/access0/initiators/node1/\n" NODE "node1/access0/initiators/read_latency: 5\\n\n" NODE
     "node1/access0/initiators/write_latency: 6\\n\n" NODE
     "node1/access0/initiators/read_bandwidth: 20000\\n\n" NODE
     "node1/access0/initiators/write_bandwidth: 19000\\n\n" NODE
     "node2/access0/initiators/node1/\n" NODE "node2/access0/initiators/read_latency: 110\\n\n" NODE
     "node2/access0/initiators/write_latency: 130\\n\n" NODE
     "node2/access0/initiators/read_bandwidth: 800\\n\n" NODE
     "node2/access0/initiators/write_bandwidth: 700\\n\n" STATUS "0-2\\n\n"},
    {"holes",
     NODE "online: 0,2,5\\n\n" CPUS "0-5\\n\n" KB(0, 1048576) KB(2, 2097152) KB(5, 4194304) NODE
     "node0/cpulist: 0,4\\n\n" NODE "node2/cpulist: 1,5\\n\n" NODE "node5/cpulist: 2-3\\n\n" NODE
     "node0/distance: 10 21 22\\n\n" NODE "node2/distance: 21 10 23\\n\n" NODE
     "node5/distance: 22 23 10\\n\n" STATUS "0,2,5\\n\n"},
    {"eight", NODE "online: 0-7\\n\n" CPUS "0-15\\n\n" KB(0, 1000) KB(1, 1001) KB(2, 1002)
                  KB(3, 1003) KB(4, 1004) KB(5, 1005) KB(6, 1006) KB(7, 1007) NODE
     "node0/cpulist: 0,8\\n\n" NODE "node1/cpulist: 1,9\\n\n" NODE "node2/cpulist: 2,10\\n\n" NODE
     "node3/cpulist: 3,11\\n\n" NODE "node4/cpulist: 4,12\\n\n" NODE "node5/cpulist: 5,13\\n\n" NODE
     "node6/cpulist: 6,14\\n\n" NODE "node7/cpulist: 7,15\\n\n" NODE
     "node0/distance: 10 12 12 12 32 32 32 33\\n\n" NODE
     "node1/distance: 12 10 12 12 32 32 33 32\\n\n" NODE
     "node2/distance: 12 12 10 12 32 33 32 32\\n\n" NODE
     "node3/distance: 12 12 12 10 33 32 32 32\\n\n" NODE
     "node4/distance: 32 32 32 33 10 12 12 12\\n\n" NODE
     "node5/distance: 32 32 33 32 12 10 12 12\\n\n" NODE
     "node6/distance: 32 33 32 32 12 12 10 12\\n\n" NODE
     "node7/distance: 33 32 32 32 12 12 12 10\\n\n" STATUS "0-7\\n\n"},
    /* A bank that is empty, and a cpuset that keeps the process to the last node. */
    {"no memory",
     NODE "online: 0-2\\n\n" CPUS "0-2\\n\n" KB(0, 8388608) KB(1, 0) KB(2, 8388608) NODE
     "node0/cpulist: 0\\n\n" NODE "node1/cpulist: 1\\n\n" NODE "node2/cpulist: 2\\n\n" NODE
     "node0/distance: 10 20 20\\n\n" NODE "node1/distance: 20 10 20\\n\n" NODE
     "node2/distance: 20 20 10\\n\n" STATUS "2\\n\n"},
    {"offline",
     NODE "possible: 0-3\\n\n" NODE "online: 1,3\\n\n" CPUS "0-1\\n\n" KB(1, 8388608) KB(3, 8388608)
         NODE "node1/cpulist: 0\\n\n" NODE "node3/cpulist: 1\\n\n" NODE
              "node1/distance: 10 20\\n\n" NODE "node3/distance: 20 10\\n\n" STATUS "0-3\\n\n"},
    /* Memory without processors and without figures: the distances say whose it is. */
    {"memory only", NODE "online: 0-3\\n\n" CPUS "0-7\\n\n" KB(0, 8388608) KB(1, 8388608)
                        KB(2, 33554432) KB(3, 33554432) NODE
     "node0/cpulist: 0-3\\n\n" NODE "node1/cpulist: 4-7\\n\n" NODE "node2/cpulist: \\n\n" NODE
     "node3/cpulist: \\n\n" NODE "node0/distance: 10 21 17 28\\n\n" NODE
     "node1/distance: 21 10 28 17\\n\n" NODE "node2/distance: 17 28 10 28\\n\n" NODE
     "node3/distance: 28 17 28 10\\n\n" STATUS "0-3\\n\n"},
};

#endif
