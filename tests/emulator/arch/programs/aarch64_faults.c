/* What Linux makes of exceptions at EL0 (arch/arm64/kernel/traps.c): one line each. */
#include <signal.h>
#include <stdio.h>
#include <setjmp.h>
#include <ucontext.h>
#include <sys/mman.h>
static sigjmp_buf b; 
static void h(int n, siginfo_t*i, void*c){ ucontext_t*u=c; printf("signal %d code %d %s\n", n, i->si_code, (long)i->si_addr == (long)u->uc_mcontext.pc ? "at pc" : (long)i->si_addr == (long)u->uc_mcontext.fault_address ? "at fault address" : "elsewhere"); siglongjmp(b,1);}
#define T(n,x) printf("%s: ",n); fflush(stdout); if(!sigsetjmp(b,1)) { x; puts("nothing"); }
static char alt[65536];
int main(){ setvbuf(stdout,0,_IONBF,0); stack_t s={alt,0,sizeof alt}; sigaltstack(&s,0); struct sigaction a={.sa_sigaction=h,.sa_flags=SA_SIGINFO|SA_ONSTACK}; for(int i=1;i<32;i++) sigaction(i,&a,0);
T("brk", __asm__ volatile("brk #0"));
T("udf", __asm__ volatile(".inst 0"));
T("undefined", __asm__ volatile(".inst 0xffffffff"));
T("hlt", __asm__ volatile("hlt #0"));
T("hvc", __asm__ volatile("hvc #0"));
T("smc", __asm__ volatile("smc #0"));
T("eret", __asm__ volatile("eret"));
T("msr daif", __asm__ volatile("msr daifset,#2"));
T("mrs sctlr", __asm__ volatile("mrs x0, sctlr_el1":::"x0"));
T("misaligned pc", ((void(*)(void))((long)main|2))());
T("misaligned sp", __asm__ volatile("mov x9,sp; add x10,sp,#1; mov sp,x10; ldr x11,[sp]; mov sp,x9":::"x9","x10","x11","memory"));
char *p=mmap(0,4096,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);
T("misaligned ldxr", __asm__ volatile("ldxr x0,[%0]"::"r"(p+1):"x0"));
T("misaligned ldr", __asm__ volatile("ldr x0,[%0]"::"r"(p+1):"x0"); puts("fine"));
T("misaligned ldadd", __asm__ volatile(".arch_extension lse\nldadd x0,x1,[%0]"::"r"(p+3):"x0","x1","memory"));
T("dc ivac", __asm__ volatile("dc ivac, %0"::"r"(p)));
T("at", __asm__ volatile("at s1e0r, %0"::"r"(p)));
T("wfi", __asm__ volatile("wfi"); );
T("wfe", __asm__ volatile("sevl; wfe"); );
T("yield", __asm__ volatile("yield"); );
return 0;}
